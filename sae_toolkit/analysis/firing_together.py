"""Which latents fire when a latent fires, from one sparse matrix of what fired and never a table of all pairs."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from sae_toolkit.analysis.latent_record import Neighbour
from sae_toolkit.analysis.neighbours import as_latents
from sae_toolkit.metrics.kept_latents import SparseMatrix, indicators

LATENTS_AT_ONCE = 256
"""Their pairs with all latents exist at a time: at most 256 * d_sae counts, those that are not 0."""

PerPair = Float64[np.ndarray, " n_pairs"]


class PairCounts(NamedTuple):
    """In how many of n samples both latents of a pair fire (never 0 here), the first does, the second does."""

    both: Float64[np.ndarray, " n_pairs"]
    first: Float64[np.ndarray, " n_pairs"]
    second: Float64[np.ndarray, " n_pairs"]
    n: int


def phi(pairs: PairCounts) -> PerPair:
    """Correlation of the two firing indicators; 0 where one of them always fires."""
    covariance = pairs.n * pairs.both - pairs.first * pairs.second
    spread = pairs.first * (pairs.n - pairs.first) * pairs.second * (pairs.n - pairs.second)
    values: PerPair = np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)
    return values


def jaccard(pairs: PairCounts) -> PerPair:
    """both / (first + second - both)."""
    values: PerPair = pairs.both / (pairs.first + pairs.second - pairs.both)
    return values


def cosine(pairs: PairCounts) -> PerPair:
    """both / sqrt(first * second)."""
    values: PerPair = pairs.both / np.sqrt(pairs.first * pairs.second)
    return values


def fires_together(
    acts: SparseMatrix, latents: Sequence[int], n_top: int, *, measure: Callable[[PairCounts], PerPair] = phi
) -> list[tuple[Neighbour, ...]]:
    """For each of some latents the n_top others of largest measure, if it is above 0; of equals the first.

    `acts` `[n_samples d_sae]`, as `KeptLatents.matrix` gives it: a latent fires where an entry is stored.
    """
    fires = indicators(acts).tocsc()
    counts = np.diff(fires.indptr).astype(np.float64)
    chosen = np.array(latents, dtype=np.int64)
    found: list[tuple[Neighbour, ...]] = []
    for start in range(0, len(chosen), LATENTS_AT_ONCE):
        block = chosen[start : start + LATENTS_AT_ONCE]
        both = (fires[:, block].T @ fires).tocsr()
        rows = np.repeat(np.arange(len(block)), np.diff(both.indptr))
        others = both.indices.astype(np.int64)
        values = measure(PairCounts(both.data.astype(np.float64), counts[block[rows]], counts[others], fires.shape[0]))
        eligible = (others != block[rows]) & (values > 0)
        found += largest_of_rows(rows[eligible], others[eligible], values[eligible], len(block), n_top)
    return found


def largest_of_rows(
    rows: Int[np.ndarray, " n"], others: Int[np.ndarray, " n"], values: PerPair, n_rows: int, n_top: int
) -> list[tuple[Neighbour, ...]]:
    """The n_top largest of every row as latents."""
    order = np.lexsort((others, -values, rows))
    starts = np.searchsorted(rows[order], np.arange(n_rows + 1))
    parts = [order[a : min(a + n_top, b)] for a, b in pairwise(starts.tolist())]
    return [as_latents(others[part].tolist(), values[part].tolist()) for part in parts]
