from collections import Counter

import numpy as np
import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics import VariableRecovery
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.variable_recovery import by_frequency, permutation_within
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

NAMES = ("value: a", "value: b", "mood: good")


def scores_of(features, latents, tokens):
    metric = VariableRecovery(NAMES)
    n = len(tokens)
    batch = ActivationBatch(torch.zeros(n, 2), token_ids=tokens, coefficients=SparseRows.from_dense(features.float()))
    metric.update(batch, SAEOutput(torch.zeros(n, 2), SparseRows.from_dense(latents.float())))
    return metric.compute(FixedDictionary(torch.zeros(latents.shape[1], 2), coder=LinearTopK(1)))


def a_language(n=40_000):
    """Token 1 in one half of the samples; there value a in one half of them, else b. Latents know both values."""
    rng = torch.Generator().manual_seed(0)
    tokens = (torch.rand(n, generator=rng) < 0.5).long()
    a = (tokens == 1) & (torch.rand(n, generator=rng) < 0.5)
    b = (tokens == 1) & ~a
    mood = torch.rand(n, generator=rng) < 0.25
    return torch.stack([a, b, mood], 1), tokens


def test_perfect_latents_score_one_and_shuffled_labels_what_is_left_by_hand():
    features, tokens = a_language()
    scores = scores_of(features, features[:, :2], tokens)
    assert scores["variable_f1_value"].value == 1.0
    assert scores["variable_f1_value"].n == 2
    # Labels of rate 1/4 moved anywhere, a detector of rate 1/4: precision = recall = 1/4.
    assert scores["variable_f1_value_shuffled"].value == pytest.approx(0.25, abs=0.02)
    # Moved among tokens 1: P(a | detector fires) = P(a | token 1) = 1/2.
    assert scores["variable_f1_value_shuffled_in_token"].value == pytest.approx(0.5, abs=0.02)
    # No latent knows the mood: the best of the two fires independently of it, on 1/4 of the samples.
    assert scores["variable_f1_mood"].value == pytest.approx(0.25, abs=0.02)
    assert scores["variable_f1_mood"].n == 1


def test_a_latent_that_only_knows_the_token_is_unmasked_by_shuffling_within_it():
    features, tokens = a_language()
    scores = scores_of(features, (tokens == 1)[:, None], tokens)
    # precision 1/2, recall 1: F1 = 2/3, before and after.
    assert scores["variable_f1_value"].value == pytest.approx(2 / 3, abs=0.02)
    assert scores["variable_f1_value_shuffled_in_token"].value == pytest.approx(2 / 3, abs=0.02)


def test_what_context_adds_is_the_difference():
    features, tokens = a_language()
    scores = scores_of(features, features, tokens)
    assert scores["variable_f1_value_beyond_token"].value == pytest.approx(0.5, abs=0.02)
    token_only = scores_of(features, (tokens == 1)[:, None], tokens)
    assert token_only["variable_f1_value_beyond_token"].value == pytest.approx(0, abs=0.02)


def test_rare_and_common_values_apart_by_hand():
    names = [*(f"value: {i}" for i in range(8)), "mood: good"]
    f1 = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0], dtype=torch.float64)
    scores = by_frequency(names, f1, [80, 70, 60, 50, 4, 3, 2, 1, 9])
    assert set(scores) == {"variable_f1_value_rare", "variable_f1_value_common"}
    assert scores["variable_f1_value_rare"].value == pytest.approx(0.65)
    assert scores["variable_f1_value_common"].value == pytest.approx(0.25)


def test_silent_values_are_left_out():
    features, tokens = a_language(2000)
    features[:, 0] = False
    scores = scores_of(features, features, tokens)
    assert scores["variable_f1_value"].n == 1


def test_permutations_stay_within_their_group():
    groups = np.random.default_rng(0).integers(5, size=1000)
    moved = permutation_within(groups, np.random.default_rng(1))
    assert sorted(moved.tolist()) == list(range(1000))
    assert (groups[moved] == groups).all()
    assert (moved != np.arange(1000)).mean() > 0.9
    firsts = Counter(
        int(permutation_within(np.zeros(3, dtype=int), np.random.default_rng(seed))[0]) for seed in range(300)
    )
    assert min(firsts[place] for place in range(3)) > 60  # each place about 100 times


def test_batches_without_tokens_are_refused():
    batch = ActivationBatch(torch.zeros(2, 2), coefficients=SparseRows.from_dense(torch.eye(3)[:2]))
    with pytest.raises(ValueError, match="token_ids"):
        VariableRecovery(NAMES).update(batch, SAEOutput(torch.zeros(2, 2), SparseRows.from_dense(torch.eye(2))))
