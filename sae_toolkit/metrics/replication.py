"""How sure a mean over seeds and units is: a table with one row per seed, one column per feature, latent or block.

Seeds and units both vary, and both are few enough to matter. Where every seed was judged on the same units (one world,
one held-out text) the two are crossed: variance components of the two-way random-effects model (Searle, Casella &
McCulloch 1992, section 4.3) with Satterthwaite's degrees of freedom, as for subjects and items (Clark 1973, section
"The quasi F"). Where every seed had units of its own, the seeds' means are independent: Student's t.
"""

from collections.abc import Sequence
from math import isnan, nan, sqrt
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from sae_toolkit.metrics.bootstrap import (
    LEVEL,
    MIN_UNITS,
    N_RESAMPLES,
    Interval,
    Statistic,
    numpy_generator,
    percentile_interval,
)

Design = Literal["crossed", "nested"]
"""Whether all seeds share their units, or each seed has its own."""
MIN_SEEDS = 3
"""Below this a spread over seeds is a guess: with 2 the 95 % t-interval is 12.7 standard errors wide to each side."""

Table = Float64[np.ndarray, "_ _"]
"""[n_seeds n_units]."""


class Estimate(NamedTuple):
    """A mean over seeds and units with its 95 % interval."""

    value: float
    low: float | None
    """None below 3 seeds, where an interval would have to be made up."""
    high: float | None
    standard_error: float
    df: float
    """Degrees of freedom of the t-distribution behind the interval."""
    n_seeds: int
    n_units: int
    """Units with an answer in every seed; for nested units their mean number."""

    def p_value(self) -> float:
        """Two-sided, of a true mean of 0; NaN where nothing is known of the spread."""
        from scipy.stats import t as student  # noqa: PLC0415  (slow import)

        if isnan(self.standard_error):
            return nan
        if self.standard_error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * student.sf(abs(self.value) / self.standard_error, df=self.df))


def complete_units(*tables: Table) -> list[Table]:
    """The tables without the units that some seed of some table has no answer (NaN) for."""
    shapes = {table.shape for table in tables}
    if len(shapes) > 1:
        raise ValueError(f"complete_units: tables of {sorted(shapes)} (seeds, units) given, but they must be alike.")
    known = ~np.isnan(np.stack(tables)).any(axis=(0, 1))
    return [table[:, known] for table in tables]


def estimate(table: Table, *, design: Design, level: float = LEVEL) -> Estimate:
    """Mean of a table and its interval, units without an answer left out: everywhere if crossed, else in their seed."""
    return crossed_estimate(table, level=level) if design == "crossed" else nested_estimate(list(table), level=level)


def crossed_estimate(table: Table, *, level: float = LEVEL) -> Estimate:
    """Of a table whose columns are the same units in every row.

    Variance of the mean = (MS_seeds + max(MS_units - MS_rest, 0)) / (n_seeds n_units), MS the mean squares of the
    two-way table; degrees of freedom (that sum)^2 / sum of (MS^2 / its own), Satterthwaite 1946. Without an effect of
    units this is Student's t over seeds. (A seed component cut off at 0, too, made 1 % false claims in place of 5.)
    """
    (table,) = complete_units(table)
    n_seeds, n_units = table.shape
    value = float(table.mean()) if table.size else nan
    if n_seeds < MIN_SEEDS or n_units < MIN_UNITS:
        return Estimate(value, None, None, nan, nan, n_seeds, n_units)
    by_seed, by_unit = table.mean(1) - value, table.mean(0) - value
    rest = table - value - by_seed[:, None] - by_unit
    seed_df, unit_df, rest_df = n_seeds - 1, n_units - 1, (n_seeds - 1) * (n_units - 1)
    seed_square = n_units * float((by_seed**2).sum()) / seed_df
    unit_square = n_seeds * float((by_unit**2).sum()) / unit_df
    rest_square = float((rest**2).sum()) / rest_df
    total = seed_square + max(unit_square - rest_square, 0.0)
    parts = seed_square**2 / seed_df + unit_square**2 / unit_df + rest_square**2 / rest_df
    df = max(float(seed_df), total**2 / parts) if parts > 0 else float(seed_df)
    return t_interval(value, sqrt(total / table.size), df, n_seeds, n_units, level=level)


def nested_estimate(rows: Sequence[Float64[np.ndarray, " _"]], *, level: float = LEVEL) -> Estimate:
    """Of seeds with units of their own: every seed's mean counts once, whatever the number of its units."""
    means = np.array([np.nanmean(row) if (~np.isnan(row)).any() else nan for row in rows])
    n_units = round(float(np.mean([(~np.isnan(row)).sum() for row in rows]))) if rows else 0
    value = float(means.mean()) if len(means) else nan
    if len(means) < MIN_SEEDS or isnan(value):
        return Estimate(value, None, None, nan, nan, len(means), n_units)
    error = float(means.std(ddof=1)) / sqrt(len(means))
    return t_interval(value, error, len(means) - 1.0, len(means), n_units, level=level)


def t_interval(value: float, error: float, df: float, n_seeds: int, n_units: int, *, level: float) -> Estimate:
    """value -+ t(df) * error."""
    from scipy.stats import t as student  # noqa: PLC0415  (slow import)

    half = float(student.ppf((1 + level) / 2, df=df)) * error
    return Estimate(value, value - half, value + half, error, df, n_seeds, n_units)


def hierarchical_bootstrap(
    sums: Float64[np.ndarray, "n_seeds n_units n_blocks n_columns"],
    statistic: Statistic,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Float64[np.ndarray, " n_resamples"]:
    """Mean over seeds and units of a statistic of sums over blocks; seeds, then units, then blocks drawn anew.

    All three are crossed: a drawn unit is drawn in every seed, and a drawn block in every unit. Drawing each level
    counts what is left beside seeds and units several times, so that its percentiles cover 96 to 100 % where 95 % were
    asked (`docs/metrics.md`, "Comparing SAEs"; Owen 2007 calls it the pigeonhole bootstrap). Verdicts rest on
    `estimate`; what this adds is token blocks as a third level. Memory: the sums and one copy.
    """
    n_seeds, n_units, n_blocks, n_columns = sums.shape
    rng = numpy_generator(seed, "hierarchical bootstrap")
    means = np.empty(n_resamples)
    for i in range(n_resamples):
        weights = np.bincount(rng.integers(n_blocks, size=n_blocks), minlength=n_blocks)
        drawn = np.einsum("subc,b->suc", sums, weights.astype(np.float64))
        values = statistic(drawn.reshape(-1, n_columns)).reshape(n_seeds, n_units)
        means[i] = values[rng.integers(n_seeds, size=n_seeds)][:, rng.integers(n_units, size=n_units)].mean()
    return means


def hierarchical_interval(table: Table, *, seed: int = 0, level: float = LEVEL) -> Interval:
    """Percentile interval of `hierarchical_bootstrap` over seeds and units alone."""
    (table,) = complete_units(table)
    means = hierarchical_bootstrap(table[:, :, None, None], lambda sums: sums[:, 0], seed=seed)
    return percentile_interval(means, level=level)
