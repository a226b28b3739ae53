import numpy as np
import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.bootstrap import (
    BlockSums,
    block_numbers,
    interval_over_seeds,
    mean_score,
    percentile_interval,
    resampled_sums,
)


def test_resamples_depend_on_the_seed_alone():
    values = np.arange(20.0)[:, None]
    assert np.array_equal(resampled_sums(values, seed=3), resampled_sums(values, seed=3))
    assert not np.array_equal(resampled_sums(values, seed=3), resampled_sums(values, seed=4))


def test_spread_of_resampled_means_is_the_standard_error():
    values = np.random.default_rng(0).normal(size=(400, 1))
    means = resampled_sums(values)[:, 0] / 400
    assert means.std() == pytest.approx(values.std() / 20, rel=0.1)


def test_mean_score_leaves_out_what_has_no_answer():
    score = mean_score(torch.tensor([1.0, float("nan"), 3.0]), id="x/v1")
    assert (score.value, score.n, score.low) == (2.0, 2, None)
    empty = mean_score(torch.zeros(0), id="x/v1")
    assert empty.n == 0
    assert empty.value != empty.value


def test_rate_interval_has_the_stated_width_and_coverage():
    # n = 256 features at rate .9 alone give a standard error of .019
    g = torch.Generator().manual_seed(0)
    scores = [mean_score((torch.rand(256, generator=g) < 0.9).double(), id="x/v1") for _ in range(100)]
    assert np.mean([s.high - s.low for s in scores]) == pytest.approx(2 * 1.96 * 0.01875, rel=0.08)
    assert 88 <= sum(s.low <= 0.9 <= s.high for s in scores) <= 100


def test_unanswered_resamples_give_no_interval():
    assert percentile_interval(np.array([1.0, np.nan])) == (None, None)


def test_blocks_are_documents_or_runs():
    x = torch.zeros(70, 1)
    assert block_numbers(ActivationBatch(x), 0).tolist() == [0] * 32 + [1] * 32 + [2] * 6
    assert block_numbers(ActivationBatch(x[:2]), 31).tolist() == [0, 1]
    documents = torch.tensor([5, 5, 261])
    assert block_numbers(ActivationBatch(x[:3], document_ids=documents), 9).tolist() == [5, 5, 5]


def test_ratio_of_sums():
    sums = BlockSums("top", "bottom")
    sums.update(torch.arange(4), top=torch.ones(4), bottom=torch.full((4,), 2.0))
    score = sums.ratio_score("top", "bottom", n=4, id="x/v1")
    assert (score.value, score.low) == (0.5, None)  # four blocks are too few for an interval
    sums.update(torch.arange(4, 10), top=torch.ones(6), bottom=torch.full((6,), 2.0))
    score = sums.ratio_score("top", "bottom", n=10, id="x/v1")
    assert (score.low, score.value, score.high) == (0.5, 0.5, 0.5)


def test_interval_over_seeds_by_hand():
    # mean 2, s = 1, t(.975, 2) = 4.3027: half width 4.3027 / sqrt(3)
    mean, low, high = interval_over_seeds([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 2.48414, 2 + 2.48414), abs=1e-5)


def test_one_seed_has_no_spread():
    with pytest.raises(ValueError, match="at least 2 seeds"):
        interval_over_seeds([1.0])
