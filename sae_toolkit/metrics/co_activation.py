"""Whether latents that fire together point the same way, on any source."""

import numpy as np
import torch
from jaxtyping import Float64, Int

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import MIN_UNITS, N_RESAMPLES, divide, numpy_generator, percentile_interval
from sae_toolkit.metrics.co_firing import Column, KeptColumns, indicators_of, matrix_of
from sae_toolkit.metrics.matching import unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.seeding import generator_for

CO_ACTIVATION_SAMPLES = 50_000
CO_ACTIVATION_LATENTS = 512
ENOUGH_TOGETHER = 10
"""Samples in which both fire, from which the lift of a pair is known to about a third."""
FEWEST_PAIRS = 3


class CoActivation(Metric):
    """`co_activation_rank_correlation`: Spearman's r between lift and cos(d_i, d_j), signed, over pairs of latents.

    lift = P(i and j fire) / (P(i fires) P(j fires)), over the first 50,000 samples. Pairs: those of at most 512 alive
    latents (drawn with a fixed seed) that fire together at least 10 times; n is their number. NaN below 3 pairs.

    0: directions know nothing of what fires together, as with perfect latents of independent features. Above 0: what
    fires together points alike, because it has something in common (splitting, hierarchies, hedging) or because latents
    that read with one product hear each other. Below 0: it points apart, as by a pursuit, which avoids what it has
    already. The floor and ceiling tell which part is the encoder's.
    Interval: bootstrap over latents, ranks kept.
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        del source
        return [cls()]

    def __init__(self) -> None:
        self.kept = KeptColumns(CO_ACTIVATION_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        del batch
        self.kept.update(output.sparse_latents())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        latents = self.kept.columns()
        alive = torch.tensor([j for j, latent in enumerate(latents) if len(latent.samples) > 0], dtype=torch.long)
        order = torch.randperm(len(alive), generator=generator_for(0, "co-activation latents"))
        chosen = alive[order[:CO_ACTIVATION_LATENTS]].sort().values
        lift, first, second = lifts([latents[j] for j in chosen.tolist()], self.kept.n_samples)
        units = unit_rows(sae.decoder_directions())[chosen]
        cosine = (units @ units.T).numpy()[first, second]
        score = rank_correlation_score(lift, cosine, first, second, n_units=len(chosen))
        return {"co_activation_rank_correlation": score}


def lifts(
    latents: list[Column], n_samples: int
) -> tuple[Float64[np.ndarray, " n_pairs"], Int[np.ndarray, " n_pairs"], Int[np.ndarray, " n_pairs"]]:
    """Lift of the pairs that fire together often enough, and the two latents of each."""
    fires = matrix_of(indicators_of(latents), n_samples)
    together = np.asarray((fires.T @ fires).todense())
    first, second = np.nonzero(np.triu(together >= ENOUGH_TOGETHER, k=1))
    counts = together.diagonal()
    return together[first, second] * n_samples / (counts[first] * counts[second]), first, second


def rank_correlation_score(
    a: Float64[np.ndarray, " n_pairs"],
    b: Float64[np.ndarray, " n_pairs"],
    first: Int[np.ndarray, " n_pairs"],
    second: Int[np.ndarray, " n_pairs"],
    *,
    n_units: int,
) -> Score:
    """Spearman's correlation over pairs of units, which are resampled; NaN where either side never changes."""
    from scipy.stats import rankdata  # noqa: PLC0415  (slow import)

    name, n_pairs = "co_activation_rank_correlation/v1", len(a)
    if n_pairs < FEWEST_PAIRS:
        return Score(value=float("nan"), n=n_pairs, id=name)
    x, y = (rankdata(values) - (n_pairs + 1) / 2 for values in (a, b))
    tables = np.zeros((6, n_units, n_units))
    tables[:, first, second] = np.ones(n_pairs), x, y, x * x, y * y, x * y
    value = float(correlation(tables.sum(axis=(1, 2))[None])[0])
    low, high = None, None
    if n_units >= MIN_UNITS and np.isfinite(value):
        rng = numpy_generator(0, "bootstrap")
        times = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=N_RESAMPLES).astype(float)
        low, high = percentile_interval(correlation(np.stack([((times @ t) * times).sum(1) for t in tables], axis=1)))
    return Score(value=value, low=low, high=high, n=n_pairs, id=name)


def correlation(sums: Float64[np.ndarray, "n 6"]) -> Float64[np.ndarray, " n"]:
    """Pearson's r from count, sum x, sum y, sum x^2, sum y^2, sum xy; NaN where x or y never changes."""
    count, x, y, xx, yy, xy = sums.T
    count = np.where(count > 0, count, np.nan)
    spread = (xx - x**2 / count) * (yy - y**2 / count)
    floor = 1e-12 * xx * yy  # below lies only rounding
    return divide(xy - x * y / count, np.sqrt(np.where(spread > floor, spread, 0.0)), otherwise=np.nan)
