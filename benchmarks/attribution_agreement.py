"""How well attributions foretell what removing a latent does, and what they cost beside removing all of them.

    python benchmarks/attribution_agreement.py
    python benchmarks/attribution_agreement.py --prediction loss
    python benchmarks/attribution_agreement.py --model FOLDER --text FILE --hooks blocks.0.hook_resid_post \
        --context 128 --d_sae 512 --k 16 --learning_rate 1e-2 --samples 300000 --rows 6

BatchTopK SAEs are trained at all hooks in one pass (of the model that ships, unless a folder is named); then
`attribution_agreement` of every kind of attribution, for the last prediction of some held-out rows. "difference" asks
for the logit of the true next token less that of the most likely other one, "loss" for its negative log-likelihood.
"cost" is seconds of the attribution over seconds of removing every latent that fires (at most 256 a row), both timed in
the same run, row after row.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sae_toolkit import BatchTopKSAE, LearningConfig, TrainConfig, load, save, train
from sae_toolkit.activations import (
    ActivationSource,
    ModelConfig,
    Text,
    TextConfig,
    TransformerSource,
    load_known_latents,
    load_model,
    site_of,
)
from sae_toolkit.activations.known_latents import KnownLatentsSource
from sae_toolkit.analysis import (
    Attribution,
    ablation_effects,
    attribution_agreement,
    gradient_attribution,
    integrated_attribution,
    logit_difference,
    norm_exact_attribution,
    surprise_at,
)
from sae_toolkit.analysis.predictions import Prediction

HOOKS = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post")
METHODS: dict[str, Callable[..., Attribution]] = {
    "gradient": gradient_attribution,
    "norm exact": norm_exact_attribution,
    "norm exact, 4 groups": partial(norm_exact_attribution, n_groups=4),
    "norm exact, 16 groups": partial(norm_exact_attribution, n_groups=16),
    "integrated, 8 steps": integrated_attribution,
    "integrated, 16 groups, 1 step": partial(integrated_attribution, n_groups=16, n_steps=1),
    "integrated, 32 groups, 2 steps": partial(integrated_attribution, n_groups=32, n_steps=2),
}


def source_of(options: argparse.Namespace) -> ActivationSource:
    activations = TransformerSource.Config(hooks=tuple(options.hooks))
    if options.model is None:
        return load_known_latents(ModelConfig(name=None, device="cpu"), activations, KnownLatentsSource.Config())
    model = load_model(ModelConfig(name=options.model, device="cpu"), offline=True)
    text = Text.read(model.tokenizer, TextConfig(path=options.text, context_length=options.context))
    return TransformerSource(model, text, activations)


def trained_saes(source: ActivationSource, options: argparse.Namespace) -> dict[str, BatchTopKSAE]:
    """From the folder, if they are there."""
    folder = None if options.saes is None else Path(options.saes)
    if folder is not None and all((folder / hook).is_dir() for hook in source.sites):
        return {hook: load(folder / hook) for hook in source.sites}
    size = {"d_sae": options.d_sae, "k": options.k}
    saes = {
        hook: BatchTopKSAE(BatchTopKSAE.Config(d_in=d, **size), seed=options.seed) for hook, d in source.sites.items()
    }
    learning = LearningConfig(learning_rate=options.learning_rate)
    config = TrainConfig(n_samples=options.samples, batch_size=512, learning=learning, seed=options.seed)
    train(saes, source, config, sites={hook: hook for hook in saes})
    for hook, sae in saes.items():
        if folder is not None:
            save(sae, folder / hook)
    return saes


def asked_of(source: ActivationSource, hook: str, kind: str) -> Callable[[Tensor], Prediction]:
    model = getattr(source, "transformer", source).model

    def asked(row: Tensor) -> Prediction:
        last = len(row) - 2
        if kind == "loss":
            return surprise_at(last)
        logits = model.logits(row[None])[0, last].clone()
        logits[row[last + 1]] = -torch.inf
        return logit_difference(int(row[last + 1]), int(logits.argmax()), position=last)

    return asked


def seconds(what: Callable[[], object]) -> float:
    started = time.process_time()
    what()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("model", None), ("text", None), ("saes", None), ("prediction", "difference")):
        parser.add_argument(f"--{name}", default=value)
    parser.add_argument("--hooks", nargs="+", default=HOOKS)
    for name, value in (("context", 128), ("d_sae", 256), ("k", 4), ("samples", 1_200_000), ("rows", 24), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--learning_rate", type=float, default=3e-2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = source_of(options)
    for hook, sae in trained_saes(source, options).items():
        site, asked = site_of(source, hook), asked_of(source, hook, options.prediction)
        transformer = getattr(source, "transformer", source)
        rows = [(row, asked(row)) for row in transformer.spread_rows(options.rows).tokens]
        fired = [gradient_attribution(sae, transformer.model, hook, row[None], of).by_latent() for row, of in rows]

        def remove_all() -> None:
            for (row, of), latents in zip(rows, fired, strict=True):  # noqa: B023 - called in this turn
                ablation_effects(sae, transformer.model, hook, row, latents.indices[:256].tolist(), of)  # noqa: B023

        removing = seconds(remove_all)
        mean = sum(len(latents.indices) for latents in fired) / len(fired)
        print(f"\n{hook}, {options.prediction}: {mean:.0f} latents fire in a row", flush=True)
        for name, method in METHODS.items():

            def attribute_all() -> None:
                for row, of in rows:  # noqa: B023
                    method(sae, transformer.model, hook, row[None], of)  # noqa: B023

            taken = seconds(attribute_all)
            found = attribution_agreement(sae, site, asked, n_rows=options.rows, attribute=method, seed=options.seed)
            sign, rank = found["attribution_sign_agreement"], found["attribution_rank_correlation"]
            print(
                f"  {name:31} sign {sign.value:.3f} [{sign.low:.3f}, {sign.high:.3f}] of {sign.n}, "
                f"rank {rank.value:.2f}, cost {taken / removing:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
