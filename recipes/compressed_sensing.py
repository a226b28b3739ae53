"""Far more sparse features than dimensions can be read back exactly, but not by one product, and only up to a point.

256 random directions in 64 dimensions, k of them active with strengths from .1 to 1. One product and a top k, the
encoder of an SAE, already misses every eighth at k = 2; pursuit finds nine of ten codes to k = 12, a convex program to
20, and theory says where that ends (23.4). Worst-case guarantees end at 1. Elhage et al. 2022 (Toy Models of
Superposition, "Related Work") name the connection; thresholds by Donoho & Tanner 2009 and Amelunxen et al. 2014.

    sae-toolkit run compressed_sensing --output runs/sensing
"""

from dataclasses import dataclass

from sae_toolkit.ground_truth import random_directions
from sae_toolkit.metrics import (
    guaranteed_support_size,
    half_way,
    measurements_at_transition,
    packing,
    recovery_rates,
    support_size_at_transition,
)
from sae_toolkit.report import (
    Expectation,
    Headline,
    Report,
    build_experiment_report,
    code_recovery_panel,
    packing_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """One random dictionary, two sweeps, and how close random directions come."""

    n_features: int = 256
    """Directions of the dictionary."""
    d: int = 64
    """Dimensions while the support size varies."""
    support_sizes: tuple[int, ...] = (2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28)
    """Active features per sample."""
    n_samples: int = 200
    """Samples for each support size."""
    support_size: int = 8
    """Active features while the dimensions vary."""
    dimensions: tuple[int, ...] = (8, 16, 24, 28, 32, 36, 40, 48, 56, 64, 96)
    """Dimensions of the second sweep."""
    n_samples_per_dimension: int = 60
    """Samples for each number of dimensions."""
    packings: tuple[tuple[int, int], ...] = ((64, 256), (64, 1024), (256, 1024), (512, 4096))
    """(dimensions, directions) whose cosines are measured."""
    seed: int = 0
    """Of dictionaries and codes."""


SMOKE = Config(support_sizes=(2, 8, 16, 20, 28), n_samples=30, dimensions=(24, 48), packings=((64, 256),),
               n_samples_per_dimension=20)  # fmt: skip
HEADLINES = (
    Headline(name="half_way", label="Largest support", question="At which k are half of the codes still recovered?"),
)


def main(config: Config, run: RunFolder) -> Report:
    """Two sweeps, the cosines behind them, and what theory says of both."""
    n, d, k, seed = config.n_features, config.d, config.support_size, config.seed
    dictionary = random_directions(n, d, seed=seed)
    by_size = {size: recovery_rates(dictionary, size, n_samples=config.n_samples, seed=seed)
               for size in config.support_sizes}  # fmt: skip
    by_dimension = {
        there: recovery_rates(
            random_directions(n, there, seed=seed), k, n_samples=config.n_samples_per_dimension, seed=seed
        )
        for there in config.dimensions
    }
    limit, needed = support_size_at_transition(n, d), measurements_at_transition(n, k)
    guaranteed = guaranteed_support_size(packing(dictionary).largest)
    scores = scores_of("theory", {"half_way": limit, "measurements": needed, "guaranteed": guaranteed})
    for row, solver in (("basis pursuit", "basis_pursuit"), ("least squares", "nonnegative_least_squares")):
        found = [rates[f"recovered_by_{solver}"].value for rates in by_size.values()]
        scores += scores_of(row, {"half_way": half_way(list(by_size), found)})
    scores += [row for size, rates in by_size.items() for row in scores_of(f"k={size}", rates)]
    scores += [row for there, rates in by_dimension.items() for row in scores_of(f"d={there}", rates)]
    for there, m in config.packings:
        scores += scores_of(f"{m} in {there}", packing(random_directions(m, there, seed=seed))._asdict(), n=m)
    figures = [
        code_recovery_panel(f"{n} features in {d} dimensions", by_size, "active features k", limit),
        code_recovery_panel(f"{k} active of {n} features", by_dimension, "dimensions d", needed),
        packing_panel(d, (2 * d, 4 * d, 8 * d, 16 * d, 32 * d), seed=seed),
    ]
    described = {"name": "random directions", "n_features": n, "d": d, "codes": "uniform in [0.1, 1]"}
    return build_experiment_report(config, run, scores, figures, description=described, headlines=HEADLINES)


EXPECTED = (
    *(Expectation(score="recovered_by_pursuit", sae=f"k={k}", at_least=low, at_most=high)
      for k, low, high in ((8, 0.9, 1.0), (10, 0.87, 1.0), (12, 0.84, 1.0), (14, 0.65, 0.85), (16, 0.56, 0.76),
                           (20, 0.22, 0.42), (24, 0.0, 0.15), (28, 0.0, 0.1))),
    *(Expectation(score="recovered_by_nonnegative_least_squares", sae=f"k={k}", at_least=low, at_most=high)
      for k, low, high in ((14, 0.9, 1.0), (16, 0.88, 1.0), (20, 0.7, 0.9), (24, 0.27, 0.47), (28, 0.0, 0.2))),
    *(Expectation(score=f"recovered_by_{solver}", sae=f"k={k}", at_least=low)
      for solver in ("basis_pursuit", "lasso") for k, low in ((14, 0.9), (16, 0.88), (20, 0.7))),
    Expectation(score="half_way", sae="basis pursuit", at_least=21.9, at_most=24.9),
    *(Expectation(score="recovered_by_linear_top_k", sae=f"k={k}", at_least=value - 0.1, at_most=value + 0.1)
      for k, value in ((2, 0.88), (4, 0.73), (6, 0.66), (8, 0.61), (16, 0.50))),
    Expectation(score="half_way", sae="least squares", at_least=20.0, at_most=25.0),
    Expectation(score="half_way", sae="theory", at_least=23.3, at_most=23.5),
    Expectation(score="guaranteed", sae="theory", at_least=1.4, at_most=1.6),
    *(Expectation(score=score, sae=row, at_least=0.92 * value, at_most=1.08 * value)
      for row, values in (("256 in 64", (0.491, 0.373, 0.1085)), ("1024 in 64", (0.581, 0.415, 0.121)),
                          ("1024 in 256", (0.295, 0.213, 0.0542)), ("4096 in 512", (0.241, 0.167, 0.0413)))
      for score, value in zip(("largest", "mean_of_largest", "welch"), values, strict=True)),
)  # fmt: skip
SMOKE_EXPECTED = (
    Expectation(score="recovered_by_pursuit", sae="k=8", at_least=0.9),
    Expectation(score="recovered_by_basis_pursuit", sae="k=8", at_least=0.95),
    Expectation(score="recovered_by_lasso", sae="k=28", at_most=0.35),
    Expectation(score="half_way", sae="least squares", at_least=19.0, at_most=26.0),
    Expectation(score="largest", sae="256 in 64", at_least=0.45, at_most=0.53),
)
