"""How well one score orders things by another: rank correlation, with its interval over the things."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from sae_toolkit.metrics.bootstrap import MIN_UNITS, N_RESAMPLES, divide, numpy_generator
from sae_toolkit.metrics.score import Score

LEVEL = (0.025, 0.975)


def rank_correlation(x: Sequence[int | float], y: Sequence[int | float], *, seed: int = 0) -> Score:
    """Spearman's rho of two scores of the same dictionaries, ties at their mean rank (`rank_correlation/v1`).

    The 95 % interval resamples dictionaries (percentiles of 1,000; resamples in which either score is constant have no
    answer are passed over). Pairs with a NaN are left out. NaN where fewer than 3 are left or one score is constant.
    """
    if len(x) != len(y):
        raise ValueError(f"rank_correlation: {len(x)} and {len(y)} values given. Give both scores of each dictionary.")
    pairs = np.array([pair for pair in zip(x, y, strict=True) if not np.isnan(pair).any()], dtype=np.float64)
    n = len(pairs)
    value = spearman(pairs) if n >= 3 else float("nan")
    low = high = None
    if n >= MIN_UNITS and not np.isnan(value):
        rng = numpy_generator(seed, "rank correlation")
        drawn = spearman_of_tables(pairs[rng.integers(n, size=(N_RESAMPLES, n))])
        low, high = (float(bound) for bound in np.quantile(drawn[~np.isnan(drawn)], LEVEL))
        low, high = min(low, value), max(high, value)
    return Score(value=value, low=low, high=high, n=n, id="rank_correlation/v1")


def spearman(pairs: Float64[np.ndarray, "n 2"]) -> float:
    """Pearson's correlation of mean ranks; NaN where a column is constant."""
    return float(spearman_of_tables(pairs[None])[0])


def spearman_of_tables(tables: Float64[np.ndarray, "n_tables n 2"]) -> Float64[np.ndarray, " n_tables"]:
    """The same of many tables of pairs at once."""
    from scipy.stats import rankdata  # noqa: PLC0415  (slow import)

    ranks = rankdata(tables, axis=1) - (tables.shape[1] + 1) / 2
    lengths = np.sqrt((ranks**2).sum(axis=1))
    return divide(ranks.prod(axis=2).sum(axis=1), lengths.prod(axis=1), otherwise=np.nan)


def rank_correlations(
    found: Mapping[str, Mapping[str, Score]], truths: Sequence[str], guesses: Sequence[str]
) -> dict[str, Score]:
    """Over dictionaries, of each score in `truths` with each in `guesses`, called "<truth>_by_<guess>"."""
    return {
        f"{truth}_by_{guess}": rank_correlation(
            [scores[guess].value for scores in found.values()], [scores[truth].value for scores in found.values()]
        )
        for truth in truths
        for guess in guesses
    }
