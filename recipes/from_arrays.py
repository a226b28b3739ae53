"""Any activations you already have: the same trainer and every metric that needs no truth, with their floors.

Reads a .npy array [n, d] or a .safetensors file with `activations` and, where known, `token_ids`, `positions` and
`document_ids`. Documents stay on one side of the train/eval split. Without a path an example file is written first.

    sae-toolkit run from_arrays --output runs/mine --path acts.safetensors --exclude_positions 0 --k 8,16
"""

from dataclasses import dataclass

import numpy as np

from sae_toolkit import AbstractSAE, BatchTopKSAE, TopKSAE, TrainConfig, train
from sae_toolkit.activations import ActivationSource, ArraySource, SuperpositionSource
from sae_toolkit.ground_truth import dataset_a
from sae_toolkit.metrics import score_with_controls
from sae_toolkit.report import Expectation, Report, build_report
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """A file of activations, TopK and BatchTopK SAEs of several sparsities."""

    path: str | None = None
    """The file; None: an example from a known world, written into the run's folder."""
    exclude_positions: tuple[int, ...] = ()
    """Text positions left out, for example 0 for the first token."""
    exclude_token_ids: tuple[int, ...] = ()
    """Token ids left out, for example those of BOS, EOS and PAD."""
    eval_share: float = 0.1
    """Share of documents (or rows) held out."""
    k: tuple[int, ...] = (8, 16)
    """Active latents of each SAE."""
    d_sae: int = 512
    """Latents of each SAE."""
    train: TrainConfig = TrainConfig(n_samples=2_000_000)
    """Budget, learning and the seed of everything."""
    eval_samples: int = 20_000
    """Held-out samples behind every score, or all there are."""


SMOKE = Config(train=TrainConfig(n_samples=100_000, batch_size=256), d_sae=128, k=(8,), eval_samples=3_000)


def make_source(config: Config, run: RunFolder) -> ArraySource:
    """The file."""
    rows = ArraySource.Config(
        eval_share=config.eval_share,
        exclude_positions=config.exclude_positions,
        exclude_token_ids=config.exclude_token_ids,
    )
    return ArraySource.from_file(config.path or write_example(run), config=rows)


def make_saes(config: Config, source: ActivationSource) -> dict[str, AbstractSAE]:
    """A TopK and a BatchTopK SAE of every sparsity."""
    saes: dict[str, AbstractSAE] = {}
    for k in config.k:
        size = {"d_in": source.d_in, "d_sae": config.d_sae, "k": k}
        saes[f"TopK k={k}"] = TopKSAE(TopKSAE.Config(**size), seed=config.train.seed)
        saes[f"BatchTopK k={k}"] = BatchTopKSAE(BatchTopKSAE.Config(**size), seed=config.train.seed)
    return saes


def main(config: Config, run: RunFolder) -> Report:
    """Trains two SAEs per k in one pass over the file."""
    source = make_source(config, run)
    saes = make_saes(config, source)
    train(saes, source, config.train, **run.training())
    ladder = score_with_controls(saes, source, n_samples=config.eval_samples, seed=config.train.seed)
    return build_report(config, run, saes, source, ladder)


def write_example(run: RunFolder) -> str:
    """30,000 samples of a known world as a .npy file."""
    path = run.folder / "example.npy"
    batch = next(SuperpositionSource(dataset_a(0)).stream(30_000, seed=0, split="train"))
    np.save(path, batch.activations.numpy())
    return str(path)


EXPECTED = (Expectation(score="explained_variance", sae="BatchTopK k=8", at_least=0.75),)
SMOKE_EXPECTED = (Expectation(score="explained_variance", sae="TopK k=8", at_least=0.3),)
