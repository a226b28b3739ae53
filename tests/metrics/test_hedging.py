import numpy as np
import pytest
import torch
from toy import ToySource

from sae_toolkit import BatchTopKSAE, TrainConfig, train
from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.co_firing import Column
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.hedging import Hedging, deviance_root, partners_by_firing
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows


def fed(metric, latents, coefficients):
    x = torch.zeros(len(latents), 2)
    batch = ActivationBatch(activations=x, coefficients=SparseRows.from_dense(coefficients))
    metric.update(batch, SAEOutput(x, latents))
    return metric


def test_hedging_is_the_signed_lean_towards_the_partner():
    # one latent for two features: .8 along its own, .6 along the partner
    sae = FixedDictionary(torch.tensor([[0.8, 0.6]]), coder=LinearTopK(1))
    partners = torch.tensor([1, 0])
    metric = fed(Hedging(torch.eye(2), partners), torch.ones(3, 1), torch.ones(3, 2))
    assert metric.compute(sae)["hedging"].value == pytest.approx(0.6)
    away = FixedDictionary(torch.tensor([[0.8, -0.6]]), coder=LinearTopK(1))
    assert metric.compute(away)["hedging"].value == pytest.approx(-0.6)


def columns(on):
    return [Column(np.flatnonzero(column), np.ones(int(column.sum()))) for column in on.T]


def on(n, *rates, seed=0):
    return np.random.default_rng(seed).random((n, len(rates))) < rates


def test_partners_are_found_in_what_fires():
    # 1 fires mostly with 0; 2 and 3 exclude each other; 5 fires only with 4, and 4 three times as often; 6 is alone
    fires = on(20_000, 0.1, 0.7, 0.2, 0.5, 0.1, 0.3, 0.05)
    other = on(20_000, 0.03, seed=1)[:, 0]
    a, c = fires[:, 0], fires[:, 2]
    world = np.stack(
        [a, (a & fires[:, 1]) | other, c, ~c & fires[:, 3], fires[:, 4], fires[:, 4] & fires[:, 5], fires[:, 6]]
    )
    assert partners_by_firing(columns(world.T), 20_000, torch.arange(7)).tolist() == [1, 0, 3, 2, 5, 4, -1]


@pytest.mark.parametrize("seed", range(3))
def test_independent_features_have_no_partners(seed):
    rates = np.geomspace(0.001, 0.5, 200)
    fires = columns(on(5000, *rates, seed=seed))
    assert (partners_by_firing(fires, 5000, torch.arange(200)) == -1).all()


def test_only_features_asked_about_are_answered():
    world = on(2000, 0.2, 0.3)
    world = np.concatenate([world, world[:, :1]], axis=1)
    assert partners_by_firing(columns(world), 2000, torch.tensor([2, 1])).tolist() == [0, -1]


def test_deviance_by_hand():
    # o = e: 0; o = 0: 2 e; o = 2 e = 2: 2 (2 ln 2 - 1); nothing expected, as of a feature that never fires: 0
    observed, expected = np.array([3.0, 0.0, 2.0, 0.0]), np.array([3.0, 8.0, 1.0, 0.0])
    assert deviance_root(observed, expected) == pytest.approx([0, 4, (2 * (2 * np.log(2) - 1)) ** 0.5, 0])


def test_partners_found_and_given_score_the_same_and_independence_has_no_answer():
    g = torch.Generator().manual_seed(0)
    first = torch.rand(2000, 1, generator=g) < 0.2
    coefficients = torch.cat([first, first & (torch.rand(2000, 1, generator=g) < 0.5)], 1).float()
    sae = FixedDictionary(torch.tensor([[0.8, 0.6], [-0.6, 0.8]]), coder=LinearTopK(1))
    found, given = (
        fed(metric, torch.ones(2000, 2), coefficients).compute(sae)["hedging"]
        for metric in (Hedging(torch.eye(2)), Hedging(torch.eye(2), torch.tensor([1, 0])))
    )
    assert found == given
    assert given.value == pytest.approx(0)  # .6 of the parent's latent and -.6 of the child's
    independent = (torch.rand(2000, 2, generator=g) < 0.2).float()
    alone = fed(Hedging(torch.eye(2)), torch.ones(2000, 2), independent).compute(sae)["hedging"]
    assert alone.n == 0
    assert alone.value != alone.value


class PairSource(ToySource):
    """20 pairs (a, b) of features along 40 axes, each on in 5 % of samples (in a hierarchy b in half of a's)."""

    def __init__(self, kind):
        super().__init__(n_features=40, d_in=40)
        self.kind = kind

    def sample(self, n, generator):
        rate, uniform = 0.05, torch.rand(n, 20, 2, generator=generator)
        first = uniform[..., 0] < rate
        given_first, given_not = {
            "independent": (rate, rate),
            "P(b|a) = .3": (0.3, rate * 0.7 / (1 - rate)),
            "P(b|a) = .6": (0.6, rate * 0.4 / (1 - rate)),
            "hierarchical": (0.5, 0.0),
            "exclusive": (0.0, rate / (1 - rate)),
        }[self.kind]
        second = uniform[..., 1] < torch.where(first, given_first, given_not)
        strength = (1 + 0.25 * torch.randn(n, 40, generator=generator)).relu()
        return torch.stack([first, second], 2).reshape(n, 40) * strength


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("independent", 0.001),
        ("P(b|a) = .3", 0.284),
        ("P(b|a) = .6", 0.596),
        ("hierarchical", 0.460),
        ("exclusive", -0.054),
    ],
)
def test_a_trained_sae_with_one_latent_per_pair_hedges_as_measured_elsewhere(kind, expected):
    source = PairSource(kind)
    sae = BatchTopKSAE(BatchTopKSAE.Config(d_in=40, d_sae=20, k=1), seed=0)
    train(sae, source, TrainConfig(n_samples=150_000, batch_size=256))
    x = source.sample(5000, torch.Generator().manual_seed(1))
    metric = Hedging(torch.eye(40), torch.arange(40) ^ 1)
    with torch.no_grad():
        metric.update(ActivationBatch(x, coefficients=SparseRows.from_dense(x)), sae.eval().forward(x))
    assert metric.compute(sae)["hedging"].value == pytest.approx(expected, abs=0.08)
