"""The feature each latent is matched to, against scikit-learn's F1 on halves of the samples."""

from math import isnan

import pytest
import torch
from sklearn.metrics import f1_score

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.analysis.matched_features import Directions, match_features
from sae_toolkit.metrics.co_firing import KeptSamples
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows

NAMES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def samples():
    """2,000 samples; latent i follows feature i with mistakes, latent 3 fires at random, 4 never, 5 only negatively."""
    g = generator_for(0, "matching")
    features = (torch.rand(2000, 4, generator=g) < 0.15).float()
    mistakes = torch.rand(2000, 6, generator=g) < 0.05
    latents = torch.zeros(2000, 6)
    latents[:, :3] = ((features[:, :3] > 0) ^ mistakes[:, :3]) * (1 + torch.rand(2000, 3, generator=g))
    latents[:, 3] = mistakes[:, 3].float()
    latents[:, 5] = -features[:, 3]
    return features, latents


def matched(features, latents, directions=None, batch_size=300):
    kept = KeptSamples(50_000)
    for start in range(0, len(features), batch_size):
        part = slice(start, start + batch_size)
        batch = ActivationBatch(latents[part], coefficients=SparseRows.from_dense(features[part]))
        kept.update(batch, SAEOutput(latents[part], latents[part]))
    return match_features(kept, NAMES, directions)


def test_the_best_feature_of_the_first_half_is_judged_on_the_second(samples):
    features, latents = samples
    found, scores = matched(features, latents)
    for latent in range(4):
        fires, on = (latents[:, latent] > 0).numpy(), (features > 0).numpy()
        chosen = max(range(4), key=lambda f: f1_score(on[:1000, f], fires[:1000], zero_division=0))
        f1 = f1_score(on[1000:, chosen], fires[1000:], zero_division=0)
        assert (found[latent].index, found[latent].name) == (chosen, NAMES[chosen])
        assert found[latent].f1 == pytest.approx(f1)
        assert scores["feature_f1"][latent].value == pytest.approx(f1)
    assert [found[i].index for i in range(3)] == [0, 1, 2]
    assert all(found[i].f1 > 0.7 for i in range(3))


def test_the_floor_is_what_firing_at_random_scores(samples):
    """Latent 3 is independent of all features: its F1 lies near its floor; the others' lie far above theirs."""
    _, scores = matched(*samples)
    p, q = float((samples[1][1000:, 0] > 0).double().mean()), float(samples[0][1000:, 0].double().mean())
    assert scores["feature_f1"][0].floor == pytest.approx(2 * p * q / (p + q))
    assert abs(scores["feature_f1"][3].value - scores["feature_f1"][3].floor) < 0.1
    assert scores["feature_f1"][0].value > 3 * scores["feature_f1"][0].floor


def test_latents_that_never_fire_have_no_feature(samples):
    found, scores = matched(*samples)
    assert found[4] is None
    assert found[5] is None
    assert isnan(scores["feature_f1"][4].value)
    assert scores["feature_f1"][4].floor is None


def test_the_cosine_is_that_with_the_matched_features_direction(samples):
    directions = Directions(torch.eye(6, 4) * 3, torch.eye(4))
    found, scores = matched(*samples, directions)
    assert [found[i].cosine for i in range(3)] == pytest.approx([1.0] * 3)
    assert scores["feature_cosine"][1].value == pytest.approx(1.0)
    assert "feature_cosine" not in matched(*samples)[1]
    assert matched(*samples)[0][0].cosine is None


def test_batches_change_nothing(samples):
    assert repr(matched(*samples, batch_size=7)) == repr(matched(*samples, batch_size=2000))
