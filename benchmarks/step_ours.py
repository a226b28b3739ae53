"""Our steps, a textbook loop and the floor, for `step_speed.py`."""

import dataclasses
from typing import Any

import torch
from step_worker import Step, Task, serve
from torch import Tensor, nn
from torch.nn import functional as F

from sae_toolkit import LearningConfig
from sae_toolkit.saes import AbstractSAE
from sae_toolkit.training.guard import Guard
from sae_toolkit.training.learner import Learner, StepResult


def is_dense(variant: str) -> bool:
    """Whether every latent takes part in every product: the variants held sparse by a penalty."""
    return AbstractSAE.variants[variant].has_sparsity_penalty


def ours(task: Task, xs: list[Tensor]) -> Step:
    """The step that `train` takes, with its guard against numbers that are not finite."""
    sae = variant_of(task).to(task.device)
    sae.normaliser.fit_(xs[0])
    if is_dense(task.variant) and task.who != "ours, half active":
        silence_(sae, xs[0], task)
    rank_in = "bfloat16" if task.who == "ours, bf16 ranking" else "float32"
    learner = Learner(sae, LearningConfig(rank_in=rank_in), n_steps=10**6, batch_size=task.batch, seed=0)
    guard = Guard()

    def step(x: Tensor, number: int) -> None:
        if task.n_dead:
            learner.dead.samples_since_fired[: task.n_dead] = 10**9

        def watch(result: StepResult) -> None:
            guard.watch("sae", x, result, step=number + 1)

        learner.step(x, number, before_update=watch)

    return step


def variant_of(task: Task) -> AbstractSAE:
    """Any registered variant, its required fields filled in and everything else at its default."""
    variant = AbstractSAE.variants[task.variant]
    known: dict[str, Any] = {"d_in": task.d_in, "d_sae": task.d_sae, "k": task.k}
    names = {field.name for field in dataclasses.fields(variant.Config)}
    return variant(variant.Config(**{name: value for name, value in known.items() if name in names}))


@torch.no_grad()
def silence_(sae: AbstractSAE, x: Tensor, task: Task) -> None:
    """Lowers b_enc until about k latents fire per sample, as they do after the first few hundred steps."""
    pre_acts = (sae.normaliser.normalise(x[:256]) - sae.b_dec) @ sae.W_enc
    sae.b_enc -= pre_acts.flatten().topk(task.k * pre_acts.shape[0]).values[-1]


def textbook(task: Task, xs: list[Tensor]) -> Step:
    """Dense autograd, torch's Adam, unit rows: what one writes in an afternoon."""
    directions = F.normalize(torch.randn(task.d_sae, task.d_in, generator=torch.Generator().manual_seed(0)), dim=1)
    W_dec, W_enc = nn.Parameter(directions.to(task.device)), nn.Parameter(directions.T.contiguous().to(task.device))
    b_enc, b_dec = (nn.Parameter(torch.zeros(n, device=task.device)) for n in (task.d_sae, task.d_in))
    optimizer = torch.optim.Adam([W_dec, W_enc, b_enc, b_dec], lr=1e-4)

    def latents(x: Tensor) -> Tensor:
        pre_acts = ((x - b_dec) @ W_enc + b_enc).relu()
        if is_dense(task.variant):
            return pre_acts
        if task.variant == "TopKSAE":
            top = pre_acts.topk(task.k, dim=1)
            return torch.zeros_like(pre_acts).scatter(1, top.indices, top.values)
        smallest = pre_acts.detach().flatten().topk(task.k * len(x)).values[-1]
        return pre_acts * (pre_acts >= smallest)

    def step(x: Tensor, number: int) -> None:
        z = latents(x)
        loss = (z @ W_dec + b_dec - x).square().mean()
        if is_dense(task.variant):
            loss = loss + 1e-3 * (z * W_dec.norm(dim=1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([W_dec, W_enc, b_enc, b_dec], 1.0)
        optimizer.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return step


def floor(task: Task, xs: list[Tensor]) -> Step:
    """What no step can do without: every dense product; or one, and four sums over the selected pairs; and the update.

    The update is one fused pass over weights, gradients and both moments.
    """
    parameters = [nn.Parameter(torch.randn(task.d_sae, task.d_in, device=task.device)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.Adam(parameters, lr=1e-9, fused=True)
    W_dec, W_enc = parameters[0].detach(), parameters[0].detach().T.contiguous()
    z = torch.randn(task.batch, task.d_sae, device=task.device) if is_dense(task.variant) else None
    dtype = torch.bfloat16 if task.who == "floor, bf16" else torch.float32
    n = task.batch * task.k
    columns = torch.randint(task.d_sae, (n,), generator=torch.Generator().manual_seed(0)).to(task.device)
    rows = torch.arange(n, device=task.device) // task.k
    weights = torch.ones(n, device=task.device)
    by_row = torch.arange(0, n + 1, task.k, device=task.device)
    counts = torch.bincount(columns, minlength=task.d_sae)
    order, by_column = columns.argsort(), F.pad(counts.cumsum(0), (1, 0))

    def bags(which: Tensor, vectors: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding_bag(
            which, vectors, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    def step(x: Tensor, number: int) -> None:
        with torch.no_grad():
            if z is not None:
                products = (lambda: x @ W_enc, lambda: z @ W_dec, lambda: z.T @ x, lambda: x @ W_enc, lambda: x.T @ z)
                for product in (*products, products[1], products[0])[: task.n_products]:
                    product()
            else:
                _ = x.to(dtype) @ W_enc.to(dtype)
                for _ in range(2):
                    bags(columns, W_dec, by_row)
                    bags(rows[order], x, by_column)
            optimizer.step()

    return step


MAKERS = {"ours": ours, "textbook": textbook, "floor": floor}


def make(task: Task, xs: list[Tensor]) -> Step | None:
    """The contestant by the first word of its name."""
    if task.who == "textbook" and task.variant not in ("TopKSAE", "BatchTopKSAE", "ReluSAE"):
        return None
    return MAKERS[task.who.split(",")[0]](task, xs)


if __name__ == "__main__":
    serve(make, lambda who: f"torch {torch.__version__}")
