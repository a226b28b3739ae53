"""The peers' training steps for `step_speed.py`, as their own trainers take them; runs in their environment."""

from importlib.metadata import version
from typing import Any

import torch
from step_worker import Step, Task, serve
from torch import Tensor

PACKAGES = {"SAELens": "sae-lens", "dictionary_learning": "dictionary-learning", "sparsify": "eai-sparsify"}
NESTED = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Prefixes of the Matryoshka variants, as shares of the dictionary."""


def saelens(task: Task, xs: list[Tensor]) -> Step | None:
    """`SAETrainer.step`."""
    import sae_lens
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    common: dict[str, Any] = {"d_in": task.d_in, "d_sae": task.d_sae, "device": task.device}
    sparse = task.who == "SAELens, sparse"  # which cannot differentiate its rescaled form
    by_rank = {"k": task.k, "use_sparse_activations": sparse, "rescale_acts_by_decoder_norm": not sparse}
    variants = {
        "TopKSAE": ("TopK", by_rank),
        "BatchTopKSAE": ("BatchTopK", by_rank),
        "MatryoshkaBatchTopKSAE": (
            "MatryoshkaBatchTopK",
            {**by_rank, "matryoshka_widths": [int(share * task.d_sae) for share in NESTED]},
        ),
        "ReluSAE": ("Standard", {}),
        "JumpReluSAE": ("JumpReLU", {}),
        "GatedSAE": ("Gated", {}),
    }
    if task.variant not in variants:
        return None
    name, own = variants[task.variant]
    torch.manual_seed(0)
    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(**common, **own)
    sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
    trainer_config = SAETrainerConfig(
        total_training_samples=10**6 * task.batch,
        train_batch_size_samples=task.batch,
        lr_end=3e-5,
        device=task.device,
        autocast=task.who == "SAELens, bf16",
    )
    trainer = SAETrainer(cfg=trainer_config, sae=sae, data_provider=iter(xs))

    def step(x: Tensor, number: int) -> None:
        if task.n_dead:
            trainer.n_forward_passes_since_fired[: task.n_dead] = 10**6
        trainer.step(x)
        trainer.n_training_steps += 1

    return step


def dictionary_learning(task: Task, xs: list[Tensor]) -> Step | None:
    """`trainer.update`."""
    from dictionary_learning import trainers
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer

    shares = [b - a for a, b in zip((0.0, *NESTED), NESTED, strict=False)]
    variants = {
        "TopKSAE": (trainers.TopKTrainer, {"k": task.k}),
        "BatchTopKSAE": (trainers.BatchTopKTrainer, {"k": task.k}),
        "MatryoshkaBatchTopKSAE": (MatryoshkaBatchTopKTrainer, {"k": task.k, "group_fractions": shares}),
        "ReluSAE": (trainers.StandardTrainer, {}),
        "JumpReluSAE": (trainers.JumpReluTrainer, {}),
        "GatedSAE": (trainers.GatedSAETrainer, {}),
    }
    if task.variant not in variants:
        return None
    trainer_class, own = variants[task.variant]
    trainer = trainer_class(
        steps=10**6,
        activation_dim=task.d_in,
        dict_size=task.d_sae,
        layer=0,
        lm_name="none",
        seed=0,
        device=task.device,
        **own,
    )

    def step(x: Tensor, number: int) -> None:
        if task.n_dead:
            trainer.num_tokens_since_fired[: task.n_dead] = 10**9
        trainer.update(number, x)

    return step


def sparsify(task: Task, xs: list[Tensor]) -> Step | None:
    """The step of its `Trainer` for one SAE, with Adam (its default optimizer keeps fewer moments)."""
    if task.variant != "TopKSAE":
        return None
    from sparsify import SparseCoder, SparseCoderConfig

    torch.manual_seed(0)
    sae = SparseCoder(task.d_in, SparseCoderConfig(num_latents=task.d_sae, k=task.k), device=task.device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=2e-4 / (task.d_sae / 2**14) ** 0.5)
    since_fired = torch.zeros(task.d_sae, dtype=torch.long, device=task.device)

    def step(x: Tensor, number: int) -> None:
        since_fired[: task.n_dead] = 10**9
        out = sae(x, dead_mask=since_fired > 10**7 if task.n_dead else None)
        (out.fvu + out.auxk_loss / 32).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        sae.set_decoder_norm_to_unit_norm()
        fired = torch.zeros_like(since_fired, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        since_fired.add_(len(x)).masked_fill_(fired, 0)

    return step


MAKERS = {"SAELens": saelens, "dictionary_learning": dictionary_learning, "sparsify": sparsify}


def make(task: Task, xs: list[Tensor]) -> Step | None:
    """The contestant by the first word of its name."""
    return MAKERS[task.who.split(",")[0]](task, xs)


if __name__ == "__main__":
    serve(make, lambda who: version(PACKAGES[who.split(",")[0]]))
