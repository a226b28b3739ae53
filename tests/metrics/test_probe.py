import pytest
import torch

from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth.firing import IndependentFiring
from sae_toolkit.ground_truth.magnitudes import RectifiedNormalMagnitudes
from sae_toolkit.ground_truth.presets import dataset_a
from sae_toolkit.ground_truth.world import World
from sae_toolkit.metrics.probe import linear_probe, probe_features


def test_reference_on_dataset_a():
    scores = linear_probe(SuperpositionSource(dataset_a(0)), n_train=6000, n_eval=3000)
    assert scores["probe_f1"].value == pytest.approx(0.769, abs=0.03)  # measured apart from this code
    assert scores["probe_auroc"].value == pytest.approx(0.985, abs=0.01)
    assert scores["probe_f1"].n == 256


def test_orthogonal_features_are_read_perfectly():
    world = World(
        directions=torch.eye(8),
        firing=IndependentFiring(probabilities=torch.full((8,), 0.3)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(8, mean=1.0, std=0.0),
    )
    scores = linear_probe(SuperpositionSource(world), n_train=1000, n_eval=500)
    assert scores["probe_f1"].value == scores["probe_auroc"].value == 1


def test_directions_are_differences_of_means_feature_by_feature():
    world = dataset_a(0)
    source = SuperpositionSource(world)
    found = probe_features(source, n_train=3_000, n_eval=500)
    stream = source.stream(1024, seed=0, split="train")
    batches = [next(stream) for _ in range(3)]
    x = torch.cat([batch.activations for batch in batches])[:3000].double()
    on = torch.cat([batch.coefficients.to_dense() for batch in batches])[:3000] != 0
    for feature in (0, 7, 100):
        expected = x[on[:, feature]].mean(0) - x[~on[:, feature]].mean(0)
        assert torch.allclose(found.directions[feature], expected, atol=1e-6)
