import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from sae_toolkit.metrics import rank_correlation


def test_it_is_scipys_with_ties():
    rng = np.random.default_rng(0)
    x = rng.integers(6, size=30).astype(float)
    y = x + rng.integers(8, size=30)
    score = rank_correlation(x.tolist(), y.tolist())
    assert score.value == pytest.approx(spearmanr(x, y).statistic)
    assert score.n == 30
    assert score.low < score.value < score.high


def test_by_hand():
    # ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15)
    assert rank_correlation([10, 20, 30, 40], [0.2, 0.1, 0.9, 0.5]).value == pytest.approx(0.6)
    assert rank_correlation([1, 2, 3], [9, 5, 1]).value == pytest.approx(-1)
    assert rank_correlation([1, 2, math.nan, 3], [9, 5, 0, 1]).n == 3


def test_without_an_answer():
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]).value)
    assert math.isnan(rank_correlation([1, 2], [1, 2]).value)
    assert rank_correlation([1, 2, 3], [1, 2, 3]).low is None
    with pytest.raises(ValueError, match="both scores"):
        rank_correlation([1], [1, 2])


def test_the_interval_covers_independence():
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        score = rank_correlation(rng.random(24).tolist(), rng.random(24).tolist())
        covered += score.low <= 0 <= score.high
    assert covered >= 51  # 95 % nominal, percentile intervals of 24 units are a little narrow
