"""The edge battery: numbers worked out by hand and by a separate script for 256 unit vectors in 64 dimensions."""

import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.metrics.recovery import THRESHOLDS, FeatureRecovery, recovery_scores
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK


def values(features, decoder, alive=None):
    return {name: score.value for name, score in recovery_scores(match_latents(features, decoder, alive)).items()}


def generator(seed):
    return torch.Generator().manual_seed(seed)


PERFECT = (
    "mean_matched_cosine",
    "mmcs_feature_to_latent",
    "mmcs_latent_to_feature",
    *(f"{name}_at_{t}" for t in THRESHOLDS for name in ("recall", "any_recall", "precision", "f1")),
)


def test_permuted_and_rescaled_dictionary_is_perfect(features):
    scales = 0.01 + 10 * torch.rand(256, 1, generator=generator(1))
    scores = values(features, (features * scales)[torch.randperm(256, generator=generator(2))])
    assert {name: scores[name] for name in PERFECT} == pytest.approx(dict.fromkeys(PERFECT, 1.0), abs=1e-6)
    assert scores["duplicate_fraction"] == 0
    assert scores["splitting_rate"] == 0


def test_sign_is_kept(features):
    # a separate script gave .6465 and .496 = 127/256 for one draw of signs; this draw also keeps 127 (.6463)
    positive = torch.randint(0, 2, (256,), generator=generator(0)) == 0
    positive = positive if positive.sum() == 127 else ~positive
    assert positive.sum() == 127
    scores = values(features, torch.where(positive[:, None], features, -features))
    assert scores["recall_at_0.9"] == 127 / 256
    assert scores["mean_matched_cosine"] == pytest.approx(0.6465, abs=5e-4)


def test_negated_dictionary_recovers_nothing(features):
    scores = values(features, -features)
    for t in THRESHOLDS:
        assert scores[f"recall_at_{t}"] == scores[f"any_recall_at_{t}"] == scores[f"precision_at_{t}"] == 0
        assert scores[f"f1_at_{t}"] == 0


def test_duplicates_do_not_count_as_recall(features):
    scores = values(features, features[:64].repeat(4, 1))
    assert scores["precision_at_0.9"] == pytest.approx(1.0)
    assert scores["recall_at_0.9"] == 0.25
    assert scores["mmcs_feature_to_latent"] == pytest.approx(0.4695, abs=5e-5)
    assert scores["mean_matched_cosine"] == pytest.approx(0.464, abs=5e-4)
    assert scores["duplicate_fraction"] == 0.75  # of four copies one is the original
    assert scores["splitting_rate"] == 0.25


def test_one_perfect_latent_is_one_feature_of_256(features):
    assert values(features, features[:1])["mean_matched_cosine"] == pytest.approx(0.0039, abs=1e-4)


def test_half_the_features_are_half_the_score(features):
    scores = values(features, features[:128])
    assert scores["mean_matched_cosine"] == pytest.approx(0.5, abs=1e-6)
    assert [scores[f"recall_at_{t}"] for t in THRESHOLDS] == [0.5] * 3


def test_zero_rows_change_nothing(features):
    dead = torch.arange(512) >= 256
    scores = values(features, torch.cat([features, torch.zeros(256, 64)]), ~dead)
    assert {name: scores[name] for name in PERFECT} == pytest.approx(dict.fromkeys(PERFECT, 1.0), abs=1e-6)


def test_zero_rows_that_fire_are_junk_but_do_not_touch_recall(features):
    scores = values(features, torch.cat([features, torch.zeros(256, 64)]))
    assert scores["mean_matched_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert scores["precision_at_0.9"] == 0.5


def test_junk_latents_lower_precision_only(features):
    junk = torch.randn(960, 64, generator=generator(7))
    scores = values(features, torch.cat([features, junk]))
    assert scores["recall_at_0.9"] == 1
    assert scores["precision_at_0.9"] == pytest.approx(256 / 1216)
    assert scores["f1_at_0.9"] == pytest.approx(2 * 256 / 1216 / (1 + 256 / 1216))
    assert scores["duplicate_fraction"] == 0


def test_rows_at_exactly_the_threshold_all_count():
    # 32 orthogonal features; each row leans out of their span, so that its cosine is .9 by construction
    directions, beside = torch.eye(64)[:32], torch.eye(64)[32:]
    scores = values(directions, 0.9 * directions + (1 - 0.81) ** 0.5 * beside)
    assert scores["recall_at_0.9"] == scores["precision_at_0.9"] == 1
    assert scores["recall_at_0.95"] == 0


def test_dead_latents_are_misses_for_recall_and_absent_from_precision(features):
    alive = torch.arange(256) < 192
    scores = values(features, features, alive)
    assert scores["recall_at_0.9"] == scores["any_recall_at_0.9"] == 0.75
    assert scores["precision_at_0.9"] == 1
    assert scores["mean_matched_cosine"] == pytest.approx(0.75, abs=1e-6)


def test_nothing_alive_scores_zero_or_has_no_answer(features):
    scores = values(features, features, torch.zeros(256, dtype=torch.bool))
    assert scores["recall_at_0.9"] == scores["mean_matched_cosine"] == scores["f1_at_0.9"] == 0
    assert scores["precision_at_0.9"] != scores["precision_at_0.9"]


def test_random_dictionary_scores_the_stated_floor(features):
    scores = [values(features, torch.randn(256, 64, generator=generator(s))) for s in (10, 11, 12)]
    assert sum(s["mean_matched_cosine"] for s in scores) / 3 == pytest.approx(0.328, abs=0.005)
    assert sum(s["mmcs_feature_to_latent"] for s in scores) / 3 == pytest.approx(0.346, abs=0.005)


def test_intervals_hold_the_value_and_shrink_with_more_features(features):
    noisy = features + 0.1 * torch.randn(256, 64, generator=generator(9))
    few = recovery_scores(match_latents(features[:32], noisy[:32]))["mean_matched_cosine"]
    many = recovery_scores(match_latents(features, noisy))["mean_matched_cosine"]
    assert few.low < few.value < few.high
    assert many.low < many.value < many.high
    assert many.high - many.low < few.high - few.low


def test_metric_learns_from_data_which_latents_are_alive(features):
    sae = FixedDictionary(features, coder=LinearTopK(1))
    metric = FeatureRecovery(features)
    x = features[:100]
    metric.update(ActivationBatch(activations=x), sae.forward(x))
    scores = metric.compute(sae)
    assert scores["recall_at_0.9"].value == 100 / 256
    assert scores["precision_at_0.9"].n == 100


def test_computing_before_any_sample_is_an_error(features):
    with pytest.raises(ValueError, match="no sample seen"):
        FeatureRecovery(features).compute(FixedDictionary(features, coder=LinearTopK(1)))


def test_an_explicit_zero_is_no_firing(features):
    metric = FeatureRecovery(features[:2])
    metric.update(ActivationBatch(activations=features[:1]), SAEOutput(features[:1], torch.tensor([[1.0, 0.0]])))
    assert metric.firing.alive().tolist() == [True, False]
