"""Which of two SAEs scores higher, judged on the same features and the same held-out tokens.

What both find easy or hard cancels in the difference, so that it is known far better than either score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.metrics.bootstrap import (
    MIN_UNITS,
    BlockSums,
    Statistic,
    percentile_interval,
    ratio,
    resampled_sums,
)
from sae_toolkit.metrics.evaluate import feed, inference_mode_of
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.replication import Design, Table, complete_units, estimate
from sae_toolkit.metrics.score_units import ScoreUnits
from sae_toolkit.saes.base import AbstractDictionary

N_RESAMPLES = 4000
"""Enough for a smallest p-value of 0.0005."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """First minus second, with the 95 % interval of the difference."""

    difference: float
    """Of the two scores; NaN where one has no answer."""
    low: float | None
    """None where there are too few units for an interval."""
    high: float | None
    p_value: float
    """Two-sided, of no difference; NaN where there is no interval."""
    n_seeds: int
    n_units: int
    """Features, latents or blocks that both were judged on."""
    id: str
    """Definition of the score that differs."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, NaN as None."""
        return {k: None if isinstance(v, float) and isnan(v) else v for k, v in asdict(self).items()}


def compare_units(first: ScoreUnits, second: ScoreUnits, *, seed: int = 0) -> Comparison:
    """One SAE against another: bootstrap over the units that both have an answer for."""
    refuse_different(first, second)
    (a,), (b,) = complete_units(first.values[None], second.values[None])
    n_units = len(a)
    resampled = resampled_sums((a - b)[:, None], seed=seed, n_resamples=N_RESAMPLES)[:, 0] / max(n_units, 1)
    difference = float((a - b).mean()) if n_units else nan
    return bootstrapped(difference, resampled, n_units=n_units, id=first.id)


def compare_sums(
    first: Float64[np.ndarray, "n_blocks n_columns"],
    second: Float64[np.ndarray, "_ _"],
    statistic: Statistic,
    *,
    id: str,
    seed: int = 0,
) -> Comparison:
    """Any statistic of sums over the same blocks of tokens, without linearising it: each draw takes the same blocks."""
    if first.shape != second.shape:
        raise ValueError(
            f"compare_sums: sums of shape {first.shape} and {second.shape} given, but pairs need the same blocks. "
            f"Judge both SAEs on the same samples, in one call."
        )
    sums = resampled_sums(np.hstack([first, second]), seed=seed, n_resamples=N_RESAMPLES)
    n_columns = first.shape[1]
    resampled = statistic(sums[:, :n_columns]) - statistic(sums[:, n_columns:])
    totals = (statistic(side.sum(0, keepdims=True))[0] for side in (first, second))
    difference = float(next(totals) - next(totals)) if len(first) else nan
    return bootstrapped(difference, resampled, n_units=len(first), id=id)


def compare_ratios(first: BlockSums, second: BlockSums, top: str, bottom: str, *, id: str, seed: int = 0) -> Comparison:
    """`compare_sums` of the ratio of two named sums."""
    if not torch.equal(first.occupied, second.occupied):
        raise ValueError("compare_ratios: the sums are of different blocks. Judge both SAEs on the same samples.")
    mine, theirs = (
        sums.sums[sums.occupied][:, [sums.names.index(top), sums.names.index(bottom)]].numpy()
        for sums in (first, second)
    )
    return compare_sums(mine, theirs, ratio, id=id, seed=seed)


def bootstrapped(
    difference: float, resampled: Float64[np.ndarray, " n_resamples"], *, n_units: int, id: str
) -> Comparison:
    """Percentile interval, and the p-value at which it would touch 0 (a bootstrap cannot say less than 2 / (n + 1))."""
    low, high, p_value = None, None, nan
    if n_units >= MIN_UNITS and not isnan(difference):
        low, high = percentile_interval(resampled)
    if low is not None:
        tail = min((resampled <= 0).sum(), (resampled >= 0).sum())
        p_value = min(1.0, float(2 * (tail + 1) / (len(resampled) + 1)))
    return Comparison(difference=difference, low=low, high=high, p_value=p_value, n_seeds=1, n_units=n_units, id=id)


def compare_tables(first: Table, second: Table, *, design: Design, id: str) -> Comparison:
    """Several seeds of one variant against as many of another, seed by seed and unit by unit (`replication`).

    Row i of both must share what a seed decides: the world and the order of the data.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"compare_tables: {first.shape} and {second.shape} (seeds, units) given. Compare as many seeds of each, on "
            f"the same units."
        )
    found = estimate(first - second, design=design)
    return Comparison(
        difference=found.value,
        low=found.low,
        high=found.high,
        p_value=found.p_value(),
        n_seeds=found.n_seeds,
        n_units=found.n_units,
        id=id,
    )


def score_units(
    saes: Mapping[str, AbstractDictionary],
    source: ActivationSource,
    *,
    n_samples: int,
    seed: int = 0,
    metrics: Callable[[], list[Metric]] | None = None,
) -> dict[str, dict[str, ScoreUnits]]:
    """By dictionary and score, over the same held-out samples, every score that has units to compare by."""
    fed, _ = feed(saes, source, n_samples=n_samples, seed=seed, metrics=metrics)
    with torch.no_grad(), inference_mode_of(saes.values()):
        return {
            name: {score: units for metric in fed[name] for score, units in metric.units(sae).items()}
            for name, sae in saes.items()
        }


def compare_saes(
    first: AbstractDictionary, second: AbstractDictionary, source: ActivationSource, *, n_samples: int, seed: int = 0
) -> dict[str, Comparison]:
    """Every score that both have, over the same held-out samples. Other seeds are not in the interval."""
    units = score_units({"first": first, "second": second}, source, n_samples=n_samples, seed=seed)
    return {name: compare_units(mine, units["second"][name], seed=seed) for name, mine in units["first"].items()}


def table_of(units: Sequence[ScoreUnits]) -> Table:
    """Seeds as rows, units as columns; seeds with fewer units (as of another world) are filled up with NaN."""
    for other in units[1:]:
        if (other.id, other.unit) != (units[0].id, units[0].unit):
            raise ValueError(f"table_of: {units[0].id} and {other.id} are different scores. Give one score's units.")
    table = np.full((len(units), max(len(one.values) for one in units)), np.nan)
    for row, one in zip(table, units, strict=True):
        row[: len(one.values)] = one.values
    return table


def refuse_different(first: ScoreUnits, second: ScoreUnits) -> None:
    """Only one definition over the same units can be compared."""
    if first.id != second.id or first.unit != second.unit or len(first.values) != len(second.values):
        raise ValueError(
            f"compare_units: {first.id} over {len(first.values)} {first.unit}s and {second.id} over "
            f"{len(second.values)} {second.unit}s given. Compare one score on the same features or samples."
        )
