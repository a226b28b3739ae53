"""How sure a score is: seeded percentile bootstrap over units or blocks, t-interval over seeds."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isfinite, sqrt

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.score import Score
from sae_toolkit.seeding import generator_for

N_RESAMPLES = 1000
LEVEL = 0.95
MIN_UNITS = 8
"""Below this a percentile bootstrap is far too narrow, so no interval is given."""
N_BLOCKS = 256
COUNTS_KEPT = 2**20
"""Entries of a table of draws that is kept for the next score (float64: 8 MiB)."""
BLOCK_LENGTH = 32
"""Consecutive samples that stay together where documents are unknown."""

Interval = tuple[float | None, float | None]
Statistic = Callable[[np.ndarray], np.ndarray]
"""Of rows of sums, one value per row."""


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """A private numpy generator, for the libraries that do not take torch's."""
    return np.random.default_rng(generator_for(seed, purpose).initial_seed())


def resampled_sums(
    values: Float64[np.ndarray, "n_units n_columns"], *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Float64[np.ndarray, "n_resamples n_columns"]:
    """Column sums of `n_resamples` samples of n_units rows, drawn with replacement."""
    n_units = values.shape[0]
    if n_units * n_resamples <= COUNTS_KEPT:
        shared: Float64[np.ndarray, "n_resamples n_columns"] = resample_counts(n_units, seed, n_resamples) @ values
        return shared
    rng = numpy_generator(seed, "bootstrap")
    sums = np.empty((n_resamples, values.shape[1]))
    for i in range(n_resamples):
        sums[i] = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units) @ values
    return sums


@lru_cache(maxsize=8)
def resample_counts(n_units: int, seed: int, n_resamples: int) -> Float64[np.ndarray, "n_resamples n_units"]:
    """How often each unit is drawn in each resample: hundreds of scores over as many units share one draw."""
    rng = numpy_generator(seed, "bootstrap")
    drawn = rng.integers(n_units, size=(n_resamples, n_units)) + n_units * np.arange(n_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n_resamples * n_units).reshape(n_resamples, n_units).astype(np.float64)


def percentile_interval(resampled: Float64[np.ndarray, " n_resamples"], *, level: float = LEVEL) -> Interval:
    """The central `level` of the resampled statistic; none where some resamples have no answer."""
    if not np.isfinite(resampled).all():
        return None, None
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_score(values: Float[Tensor, " n_units"], *, id: str, seed: int = 0) -> Score:
    """Mean over units (features or latents), its interval resampled over them; NaN units are left out, also of n."""
    known = values.double()[~values.isnan()].numpy()
    n_units = known.shape[0]
    if n_units == 0:
        return Score(value=float("nan"), n=0, id=id)
    low, high = None, None
    if n_units >= MIN_UNITS:
        low, high = percentile_interval(resampled_sums(known[:, None], seed=seed)[:, 0] / n_units)
    return Score(value=float(known.mean()), low=low, high=high, n=n_units, id=id)


def block_numbers(batch: ActivationBatch, n_seen: int) -> Int[Tensor, " batch"]:
    """The block, below N_BLOCKS, in which each sample is resampled; it does not depend on how the data is batched.

    Samples of one document share a block; where documents are unknown, runs of BLOCK_LENGTH consecutive samples do.
    """
    if batch.document_ids is not None:
        return batch.document_ids.long() % N_BLOCKS
    samples = torch.arange(n_seen, n_seen + batch.activations.shape[0], device=batch.activations.device)
    return samples // BLOCK_LENGTH % N_BLOCKS


class BlockSums:
    """Float64 sums of named per-sample quantities, block by block: enough for any ratio of sums and its interval."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.sums = torch.zeros(N_BLOCKS, len(names), dtype=torch.float64)
        self.occupied = torch.zeros(N_BLOCKS, dtype=torch.bool)

    def update(self, blocks: Int[Tensor, " batch"], **columns: Float[Tensor, " batch"]) -> None:
        """Adds one batch; exactly the quantities named at construction."""
        assert set(columns) == set(self.names)
        stacked = torch.stack([columns[name].double() for name in self.names], dim=1).cpu()
        self.sums.index_add_(0, blocks.cpu(), stacked)
        self.occupied[blocks.cpu()] = True

    def total(self, name: str) -> float:
        return float(self.sums[:, self.names.index(name)].sum())

    def ratio_score(self, top: str, bottom: str, *, n: int, id: str) -> Score:
        """Ratio of two sums over all samples, resampled over blocks."""
        columns = [self.names.index(top), self.names.index(bottom)]
        used = self.sums[self.occupied][:, columns].numpy()
        return sums_score(used, ratio, n=n, id=id)


def ratio(sums: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, " n"]:
    """First column over second, NaN where the second is 0."""
    return divide(sums[:, 0], sums[:, 1], otherwise=np.nan)


def divide(
    top: Float64[np.ndarray, "*shape"], bottom: Float64[np.ndarray, "*shape"], *, otherwise: float
) -> Float64[np.ndarray, "*shape"]:
    """top / bottom, and `otherwise` where bottom is 0."""
    result = np.full(top.shape, otherwise)
    np.divide(top, bottom, out=result, where=bottom != 0)
    return result


def sums_score(
    block_sums: Float64[np.ndarray, "n_blocks n_columns"], statistic: Statistic, *, n: int, id: str
) -> Score:
    """A statistic of sums over all blocks, with its interval from resampled blocks."""
    value = float(statistic(block_sums.sum(0, keepdims=True))[0]) if len(block_sums) else float("nan")
    low, high = None, None
    if len(block_sums) >= MIN_UNITS and isfinite(value):
        low, high = percentile_interval(statistic(resampled_sums(block_sums)))
    return Score(value=value, low=low, high=high, n=n, id=id)


def interval_over_seeds(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean, low and high of Student's t-interval for the mean over independent seeds."""
    from scipy.stats import t as student  # noqa: PLC0415  (slow import)

    if len(values) < 2:
        raise ValueError(f"interval_over_seeds: {len(values)} value(s) given, but spread needs at least 2 seeds.")
    n, mean = len(values), float(np.mean(values))
    half = float(student.ppf((1 + level) / 2, df=n - 1) * np.std(values, ddof=1) / sqrt(n))
    return mean, mean - half, mean + half
