import numpy as np
import pytest
from scipy import stats

from sae_toolkit.metrics.replication import (
    complete_units,
    crossed_estimate,
    estimate,
    hierarchical_bootstrap,
    hierarchical_interval,
    nested_estimate,
)


def test_one_seed_effect_by_hand():
    # rows 1, 2, 3 over 8 identical units: mean squares 8 (seeds, df 2), 0 (units), 0 (rest); variance 8 / 24, df 2
    table = np.repeat([[1.0], [2.0], [3.0]], 8, axis=1)
    found = crossed_estimate(table)
    half = stats.t.ppf(0.975, df=2) * np.sqrt(1 / 3)
    assert (found.value, found.df) == (2.0, 2.0)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_identical_seeds_leave_the_spread_of_units():
    # three copies of one row: the variance of the mean is that of the row's own mean, with n_units - 1 degrees
    row = np.arange(20.0)
    found = crossed_estimate(np.stack([row] * 3))
    expected = stats.t.interval(0.95, df=19, loc=row.mean(), scale=stats.sem(row))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.df == pytest.approx(19)


def test_seeds_that_agree_too_well_take_nothing_off():
    # MS_seeds 0: what is left is the units' component, here all of their mean square but the rest's
    x = np.array([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]).repeat(4, axis=1) + np.arange(8.0)
    found = crossed_estimate(x)
    units = 3 * ((np.arange(8.0) - 3.5) ** 2).sum() / 7
    rest = 2 * 8 / 14
    assert found.standard_error**2 == pytest.approx((units - rest) / 24)


def test_variance_components_agree_with_slow_sums():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 10)) + rng.normal(size=(4, 1)) + 2 * rng.normal(size=(1, 10))
    grand = np.mean(x)
    seeds = sum(10 * (np.mean(x[i]) - grand) ** 2 for i in range(4)) / 3
    units = sum(4 * (np.mean(x[:, j]) - grand) ** 2 for j in range(10)) / 9
    rest = sum((x[i, j] - x[i].mean() - x[:, j].mean() + grand) ** 2 for i in range(4) for j in range(10)) / 27
    assert min(seeds, units) > rest  # nothing is cut off at 0 here
    found = crossed_estimate(x)
    assert found.standard_error**2 == pytest.approx((seeds + units - rest) / 40)
    assert found.df == pytest.approx((seeds + units - rest) ** 2 / (seeds**2 / 3 + units**2 / 9 + rest**2 / 27))


def test_nested_is_students_interval_of_the_means():
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=n) for n in (30, 10, 20, 50)]
    means = [row.mean() for row in rows]
    expected = stats.t.interval(0.95, df=3, loc=np.mean(means), scale=stats.sem(means))
    found = nested_estimate(rows)
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.p_value() == pytest.approx(stats.ttest_1samp(means, 0.0).pvalue)


def test_units_without_an_answer_are_left_out_everywhere_or_in_their_seed():
    table = np.ones((3, 9))
    table[0, 0] = np.nan
    assert complete_units(table)[0].shape == (3, 8)
    assert estimate(table, design="crossed").n_units == 8
    table[0, 1] = 10.0
    assert estimate(table, design="nested").value == pytest.approx((1 + 9 / 8 + 1 + 1) / 3)


@pytest.mark.parametrize("shape", [(2, 50), (3, 7)])
def test_too_few_give_no_interval(shape):
    found = crossed_estimate(np.random.default_rng(0).normal(size=shape))
    assert (found.low, found.high) == (None, None)
    assert np.isnan(found.p_value())


def test_order_changes_nothing():
    x = np.random.default_rng(0).normal(size=(4, 30))
    shuffled = x[[2, 0, 3, 1]][:, np.random.default_rng(1).permutation(30)]
    assert crossed_estimate(shuffled) == pytest.approx(crossed_estimate(x))


def test_no_spread_at_all():
    assert crossed_estimate(np.zeros((3, 9))).p_value() == 1.0
    assert crossed_estimate(np.ones((3, 9))).p_value() == 0.0


def test_tables_must_be_alike():
    with pytest.raises(ValueError, match="must be alike"):
        complete_units(np.zeros((3, 4)), np.zeros((3, 5)))


def test_bootstrap_over_units_has_their_standard_error():
    row = np.random.default_rng(0).normal(size=100)
    low, high = hierarchical_interval(np.stack([row] * 3))  # equal seeds: only units vary
    assert high - low == pytest.approx(2 * 1.96 * row.std() / 10, rel=0.1)


def test_bootstrap_over_blocks_has_the_standard_error_of_a_ratio():
    # one seed, one unit: only blocks vary. The delta method gives the spread of sum a / sum b
    rng = np.random.default_rng(0)
    b = rng.uniform(1, 2, size=200)
    a = b * rng.normal(3, 0.5, size=200)
    r = a.sum() / b.sum()
    delta = np.sqrt(((a - r * b) ** 2).mean() / 200) / b.mean()
    sums = np.stack([a, b], axis=1)[None, None]
    means = hierarchical_bootstrap(sums, lambda s: s[:, 0] / s[:, 1])
    assert means.mean() == pytest.approx(r, rel=0.01)
    assert means.std() == pytest.approx(delta, rel=0.1)
