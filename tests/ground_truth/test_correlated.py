import math

import pytest
import torch
from scipy.stats import multivariate_normal, norm

from sae_toolkit.ground_truth.correlated import CopulaFiring, LowRankFiring

N = 60_000


def sample_dense(firing, n_samples=N, seed=0):
    fired = firing.sample(n_samples, torch.Generator().manual_seed(seed))
    mask = torch.zeros(n_samples, firing.n_features, dtype=torch.bool)
    mask[fired.rows, fired.features] = True
    assert int(mask.sum()) == len(fired.rows)  # no cell twice
    return mask


def joint_rate(p, q, rho):
    """P(g1 > quantile(1-p), g2 > quantile(1-q)) for normals of correlation rho = P of both below the negated ones."""
    return multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([norm.ppf(p), norm.ppf(q)])


def check_rate(events, expected):
    assert abs(float(events.double().mean()) - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / len(events))


# the first pair is frequent (drawn densely), the others rare (drawn by gaps and thinning)
@pytest.mark.parametrize(("p", "q"), [(0.4, 0.3), (0.02, 0.015), (0.004, 0.003)])
@pytest.mark.parametrize("rho", [0.6, -0.3])
@pytest.mark.parametrize("kind", ["low rank", "dense"])
def test_pairs_fire_together_as_the_bivariate_normal_says(kind, p, q, rho):
    rates = torch.tensor([p, q])
    if kind == "low rank":
        loading = math.sqrt(abs(rho))
        factors = torch.tensor([[loading], [math.copysign(loading, rho)]])
        mask = sample_dense(LowRankFiring(probabilities=rates, factors=factors))
    else:
        mask = sample_dense(CopulaFiring(probabilities=rates, correlation=torch.tensor([[1.0, rho], [rho, 1.0]])))
    check_rate(mask[:, 0], p)
    check_rate(mask[:, 1], q)
    check_rate(mask.all(dim=1), joint_rate(p, q, rho))


@pytest.mark.parametrize("rho", [0.6, -0.6])
def test_sign_of_the_correlation(rho):
    firing = CopulaFiring(probabilities=torch.full((2,), 0.2), correlation=torch.tensor([[1.0, rho], [rho, 1.0]]))
    assert torch.corrcoef(sample_dense(firing, 5000).double().T)[0, 1] * rho > 0.05


def test_gaps_and_dense_draws_agree_with_a_plain_copula():
    generator = torch.Generator().manual_seed(1)
    factors = 0.2 * torch.randn(30, 4, generator=generator)
    rates = torch.logspace(-3, -0.5, 30)
    z, noise = torch.randn(N, 4, generator=generator), torch.randn(N, 30, generator=generator)
    normals = z @ factors.T + (1 - factors.square().sum(1)).sqrt() * noise
    reference = (normals > torch.tensor(norm.isf(rates.double().numpy()), dtype=torch.float32)).double()
    ours = sample_dense(LowRankFiring(probabilities=rates, factors=factors)).double()
    rates = rates.double()
    assert ((ours.mean(0) - rates).abs() < 4.5 * (rates * (1 - rates) / N).sqrt()).all()
    second = [m.T @ m / N for m in (ours, reference)]
    assert ((second[0] - second[1]).abs() < 5 * (2 * second[1].clamp(min=1e-4) / N).sqrt()).all()
    spread = [m.sum(1).std() for m in (ours, reference)]
    assert abs(float(spread[0] / spread[1]) - 1) < 0.03


def test_cell_by_cell_equals_all_at_once_in_distribution():
    firing = LowRankFiring(probabilities=torch.tensor([0.1, 0.05]), factors=torch.full((2, 1), 0.8))
    draw = firing.draw(N, torch.Generator().manual_seed(0))
    first = draw.among(torch.tensor([0]))
    second = draw.at(first.rows, torch.ones_like(first.rows))  # feature 1 where feature 0 fired
    check_rate(second, joint_rate(0.1, 0.05, 0.64) / 0.1)


def test_full_loading_is_one_shared_coin():
    firing = LowRankFiring(probabilities=torch.full((2,), 0.3), factors=torch.ones(2, 1))
    mask = sample_dense(firing)
    assert float((mask[:, 0] != mask[:, 1]).double().mean()) < 1e-4
    check_rate(mask[:, 0], 0.3)


def test_rates_zero_and_one():
    firing = LowRankFiring(probabilities=torch.tensor([0.0, 1.0, 0.01]), factors=torch.full((3, 2), 0.3))
    mask = sample_dense(firing, 2000)
    assert not mask[:, 0].any()
    assert mask[:, 1].all()


def test_blocks_do_not_change_the_rates(monkeypatch):
    monkeypatch.setattr("sae_toolkit.ground_truth.correlated.CELLS_PER_BLOCK", 2 * 30_000)
    rates = torch.tensor([0.3, 0.001, 0.02, 0.5, 0.004])
    for firing in (
        LowRankFiring(probabilities=rates, factors=torch.full((5, 2), 0.4)),
        CopulaFiring(probabilities=rates, correlation=torch.eye(5)),
    ):
        mask = sample_dense(firing, 30_000)
        for feature, rate in enumerate(rates.tolist()):
            check_rate(mask[:, feature], rate)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("factors", [torch.ones(2, 2), torch.ones(3, 1), torch.tensor([[math.nan], [0.0]])])
def test_impossible_factors_raise(factors):
    with pytest.raises(ValueError, match="LowRankFiring"):
        LowRankFiring(probabilities=torch.tensor([0.1, 0.2]), factors=factors)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    "matrix",
    [
        [[1.0, 0.5], [0.4, 1.0]],  # not symmetric
        [[2.0, 0.5], [0.5, 1.0]],  # diagonal
        [[1.0, 1.1], [1.1, 1.0]],  # not positive definite
        [[1.0, math.nan], [math.nan, 1.0]],
        [[1.0]],  # one feature
    ],
)
def test_impossible_correlations_raise(matrix):
    with pytest.raises(ValueError, match="CopulaFiring"):
        CopulaFiring(probabilities=torch.tensor([0.1, 0.2]), correlation=torch.tensor(matrix))
