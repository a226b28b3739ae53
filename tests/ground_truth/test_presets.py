import math

import pytest
import torch
from scipy.stats import multivariate_normal, norm

from sae_toolkit.ground_truth import coherence, correlated_world, dataset_a, dataset_b, hierarchical_world, presets

PRESETS = [dataset_a, dataset_b, correlated_world, hierarchical_world]
N = 20_000


def active(world, seed=0):
    return world.sample_coefficients(N, torch.Generator().manual_seed(seed)).to_dense() > 0


@pytest.mark.parametrize(
    ("preset", "shape", "l0"),
    [
        (dataset_a, (256, 64), 6.0),  # P(N(1, .25) <= 0) is 3e-5
        (dataset_b, (256, 64), 8 * norm.cdf(1)),
        (correlated_world, (256, 64), 6.0),
        (hierarchical_world, (80, 64), 1.44),
    ],
)
def test_sizes_and_true_l0(preset, shape, l0):
    world = preset(0)
    assert tuple(world.directions.shape) == shape
    counts = active(world).sum(1).double()
    assert abs(float(counts.mean()) - l0) < 4.5 * float(counts.std()) / math.sqrt(N)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_seed_decides(preset):
    first, again, other = (preset(seed).describe()["content_sha256"] for seed in (0, 0, 1))
    assert first == again != other


def test_dataset_a_is_less_coherent_than_random():
    assert coherence(dataset_a(0).directions) < coherence(presets.random_directions(256, 64, seed=0))


def test_members_of_a_cluster_fire_together():
    fired = active(correlated_world(0)).double()
    p, rho = 6 / 256, 0.64
    expected = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([norm.ppf(p)] * 2) / p
    together = fired.T @ fired
    members = torch.arange(256) % 32
    same = (members[:, None] == members) & ~torch.eye(256, dtype=torch.bool)
    assert float(together[same].sum() / (fired.sum() * 7)) == pytest.approx(expected, rel=0.05)
    other = float(together[members[:, None] != members].mean()) / N
    assert other == pytest.approx(p * p, rel=0.05)
    assert expected / p == pytest.approx(12, abs=0.5)  # the docstring's number


def test_families_of_the_hierarchical_world():
    fired = active(hierarchical_world(0))
    parents, children = fired[:, :20], fired[:, 20:60].reshape(N, 20, 2)
    assert not (children.any(dim=2) & ~parents).any()
    assert not children.all(dim=2).any()
    rate = float(children.sum()) / float(parents.sum())
    assert abs(rate - 0.6) < 4.5 * math.sqrt(0.24 / float(parents.sum()))
