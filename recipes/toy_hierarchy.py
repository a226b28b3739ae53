"""Under sparsity pressure a parent feature is absorbed by its children's latents; one more active latent cures it.

20 parents with 2 children each (a child fires only with its parent) and 20 independent features in 64 dimensions: true
L0 1.44. A BatchTopK SAE with k=1 lets the children's latents speak for the silent parent; with k=2 it hardly does
(absorption rate .63 and .07, seed 0).

    sae-toolkit run toy_hierarchy --output runs/hierarchy
"""

from dataclasses import dataclass

from sae_toolkit import AbstractSAE, BatchTopKSAE, TrainConfig, train
from sae_toolkit.activations import ActivationSource, SuperpositionSource
from sae_toolkit.ground_truth import hierarchical_world
from sae_toolkit.metrics import score_with_controls
from sae_toolkit.report import Expectation, Report, build_report
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """One hierarchical world, BatchTopK SAEs of several sparsities."""

    k: tuple[int, ...] = (1, 2, 3)
    """Mean active latents of each SAE."""
    d_sae: int = 80
    """Latents of each SAE; the world has 80 features."""
    train: TrainConfig = TrainConfig(n_samples=1_000_000)
    """Budget, learning and the seed of everything."""
    eval_samples: int = 20_000
    """Held-out samples behind every score."""


SMOKE = Config(train=TrainConfig(n_samples=60_000, batch_size=256), k=(1, 2), eval_samples=2_000)


def make_source(config: Config, run: RunFolder) -> SuperpositionSource:
    """The hierarchical world."""
    return SuperpositionSource(hierarchical_world(config.train.seed))


def make_saes(config: Config, source: ActivationSource) -> dict[str, AbstractSAE]:
    """One SAE per k."""
    return {
        f"BatchTopK k={k}": BatchTopKSAE(
            BatchTopKSAE.Config(d_in=source.d_in, d_sae=config.d_sae, k=k), seed=config.train.seed
        )
        for k in config.k
    }


def main(config: Config, run: RunFolder) -> Report:
    """Trains one SAE per k in one pass and measures absorption on held-out samples."""
    source = make_source(config, run)
    saes = make_saes(config, source)
    train(saes, source, config.train, **run.training())
    ladder = score_with_controls(saes, source, n_samples=config.eval_samples, seed=config.train.seed)
    return build_report(config, run, saes, source, ladder)


EXPECTED = (
    Expectation(score="absorption_rate", sae="BatchTopK k=1", at_least=0.4),
    Expectation(score="absorption_rate", sae="BatchTopK k=2", at_most=0.15),
)
SMOKE_EXPECTED = (Expectation(score="absorption_rate", sae="BatchTopK k=1", at_least=0.1),)
