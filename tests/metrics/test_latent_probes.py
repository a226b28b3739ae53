"""Probes of few latents: what is chosen, what is predicted, and AUROC within groups against a loop."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from sae_toolkit.metrics.latent_probes import auroc_within, selected_probes, token_predictor

N = 400
ALL = np.ones(N, dtype=bool)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def probes_of(acts, labels, train=ALL):
    return selected_probes(sparse.csr_matrix(acts.astype(np.float32)), torch.from_numpy(labels).double(), train)


def test_the_latents_that_hold_the_concept_are_chosen(rng):
    a, b = rng.random(N) < 0.2, rng.random(N) < 0.1
    noise = rng.random((N, 20)) * (rng.random((N, 20)) < 0.2)
    acts = np.column_stack([noise[:, :7], a, noise[:, 7:], b])
    found = probes_of(acts, np.column_stack([a | b, b]))
    assert found.latents[0, :2].tolist() == [7, 21]
    assert found.latents[1, 0] == 21
    assert [found.scores[k].shape for k in (1, 2, 5)] == [(N, 2)] * 3


def test_a_duplicate_is_not_chosen_next(rng):
    a, b = rng.random(N) < 0.3, rng.random(N) < 0.1
    acts = np.column_stack([a, a, a * 5.0, b])
    assert probes_of(acts, (a | b)[:, None]).latents[0, :2].tolist() == [0, 3]


def test_a_giant_latent_gains_nothing_by_its_scale(rng):
    a = rng.random(N) < 0.3
    giant = 1e6 * (rng.random(N) < 0.5)
    constant = np.full(N, 123456.7)
    assert probes_of(np.column_stack([giant, 1e-3 * a, constant]), a[:, None]).latents[0, 0] == 1


def test_one_latent_predicts_by_least_squares(rng):
    z, y = rng.random(N), rng.random(N) < 0.5
    train = np.arange(N) < 300
    slope, offset = np.polyfit(z[train].astype(np.float32), y[train], 1)
    found = probes_of(z[:, None], y[:, None], train).scores[1][:, 0].numpy()
    assert found == pytest.approx(slope * z + offset, abs=1e-4)  # the ridge is 1e-4


def test_latents_silent_in_training_are_harmless(rng):
    y = rng.random(N) < 0.5
    acts = np.zeros((N, 6))
    acts[300:, 0] = y[300:]
    found = probes_of(acts, y[:, None], np.arange(N) < 300)
    assert found.scores[5][:, 0].numpy() == pytest.approx(np.full(N, y[:300].mean()))


def test_token_predictor_by_hand():
    # token 7 in training: 2 of 3; token 4: 0 of 1; overall 2 of 4; one more sample at that rate each; token 9 is new
    tokens = np.array([7, 7, 7, 4, 7, 9])
    targets = torch.tensor([[1.0], [1], [0], [0], [1], [1]], dtype=torch.float64)
    train = np.array([True] * 4 + [False] * 2)
    expected = [2.5 / 4] * 3 + [0.5 / 2, 2.5 / 4, 0.5]
    assert token_predictor(tokens, targets, train)[:, 0].tolist() == pytest.approx(expected)


def test_auroc_within_groups_against_a_loop(rng):
    groups, scores = rng.integers(6, size=120), rng.integers(8, size=120).astype(float)
    positive = rng.random(120) < 0.3
    won = pairs = 0.0
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive & (groups == groups[i])):
            won += (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
            pairs += 1
    assert auroc_within(groups, scores, positive) == pytest.approx(won / pairs)
    one = np.zeros(120, dtype=int)
    assert auroc_within(one, scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert np.isnan(auroc_within(np.arange(120), scores, positive))
