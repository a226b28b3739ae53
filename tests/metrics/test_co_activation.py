import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.co_activation import CoActivation
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK


def score_of(latents, decoder):
    metric = CoActivation()
    for part in latents.split(1000):
        x = torch.zeros(len(part), decoder.shape[1])
        metric.update(ActivationBatch(x), SAEOutput(x, part))
    sae = FixedDictionary(decoder, coder=LinearTopK(1))
    return metric.compute(sae)["co_activation_rank_correlation"]


def firing(n, w, *, seed=0, rate=0.2):
    return (torch.rand(n, w, generator=torch.Generator().manual_seed(seed)) < rate).float()


def test_by_hand():
    # 40 samples: latents 0 and 1 fire together in 20, 0 and 2 in 10, 1 and 2 in 10 more, each in 30 or 20 in all.
    # lifts: 20 * 40 / (30 * 30) = .89; 10 * 40 / (30 * 20) = .67 twice (tied). Cosines 0.8; 0.6 and 0.
    latents = torch.zeros(40, 3)
    latents[:20, :2] = 1
    latents[20:30, [0, 2]] = 1
    latents[30:40, 1:] = 1
    decoder = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, -0.8]])
    score = score_of(latents, decoder)
    # ranks of lift 3, 1.5, 1.5, of cosine 3, 2, 1: covariance 1.5, variances 1.5 and 2
    assert score.value == pytest.approx(1.5 / 3**0.5)
    assert score.n == 3


def test_it_is_scipys_over_pairs_that_fire_together():
    latents = firing(300, 30) * torch.linspace(1, 2, 30)
    decoder = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    fires, units = (latents > 0).numpy().astype(int), torch.nn.functional.normalize(decoder.double(), dim=1).numpy()
    lift, cosine = [], []
    for i in range(30):
        for j in range(i):
            both = int((fires[:, i] * fires[:, j]).sum())
            if both >= 10:
                lift.append(both * 300 / (fires[:, i].sum() * fires[:, j].sum()))
                cosine.append(units[i] @ units[j])
    score = score_of(latents, decoder)
    assert score.value == pytest.approx(spearmanr(lift, cosine).statistic, abs=1e-9)
    assert score.n == len(lift)
    assert score.low < score.value < score.high


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_independent_latents_in_random_directions_score_zero(seed):
    decoder = torch.randn(60, 16, generator=torch.Generator().manual_seed(seed))
    score = score_of(firing(2000, 60, seed=seed), decoder)
    assert abs(score.value) < 0.1
    assert score.low < 0 < score.high


@pytest.mark.parametrize("sign", [1, -1])
def test_groups_that_fire_together_and_point_alike_or_apart(sign):
    # two groups of ten share a coin each; in their own half of space they lie side by side, or as a simplex (cos -1/9)
    latents = firing(3000, 2, rate=0.3).repeat_interleave(10, dim=1) * firing(3000, 20, seed=9, rate=0.8)
    shape = 1 + 0.3 * torch.eye(10) if sign > 0 else torch.eye(10) - 0.1
    score = score_of(latents, torch.block_diag(shape, shape))
    assert score.value * sign > 0.7
    assert score.low * sign > 0 < score.high * sign


def test_scale_and_order_change_nothing():
    latents, decoder = firing(500, 20), torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    scales = torch.linspace(0.1, 5, 20)
    score = score_of(latents, decoder)
    other = score_of((latents * scales)[:, order], (decoder * scales[:, None])[order])
    assert (other.value, other.n) == (pytest.approx(score.value), score.n)


def test_at_most_512_latents_are_paired_and_the_choice_is_fixed():
    latents, decoder = firing(200, 600, rate=0.5), torch.randn(600, 8, generator=torch.Generator().manual_seed(1))
    score = score_of(latents, decoder)
    assert score.n == 512 * 511 / 2
    assert score == score_of(latents, decoder)


def test_zero_rows_have_no_direction():
    score = score_of(firing(300, 10), torch.zeros(10, 4))
    assert np.isnan(score.value)  # every cosine is 0: nothing to rank
