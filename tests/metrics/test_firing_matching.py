from itertools import pairwise, product
from math import isnan

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from sae_toolkit.metrics.co_firing import Column
from sae_toolkit.metrics.firing_matching import DetectorSearch, largest, match_by_firing


def columns(dense):
    return [Column(np.flatnonzero(column), column[np.flatnonzero(column)]) for column in np.asarray(dense, float).T]


def brute_force(truth, z):
    """The latent and threshold of highest F1 on the first half, and what they reach on the second."""
    half = len(truth) // 2
    best = (0.0, -1, 0.0)
    for j in range(z.shape[1]):
        levels = np.unique(np.append(z[:half, j], 0.0))
        for low, high in pairwise(levels):
            f1 = f1_score(truth[:half], z[:half, j] > (low + high) / 2)
            if f1 > best[0]:
                best = (f1, j, (low + high) / 2)
    _, j, threshold = best
    return j, f1_score(truth[half:], z[half:, j] > threshold), roc_auc_score(truth[half:], z[half:, j])


@pytest.fixture
def world():
    """Three features, and seven latents: noisy copies with many ties, then junk, the last one dead."""
    rng = np.random.default_rng(3)
    truth = rng.random((400, 3)) < [0.1, 0.3, 0.5]
    z = np.maximum(np.concatenate([truth, np.zeros((400, 3))], 1) + 0.5 * rng.standard_normal((400, 6)), 0)
    return truth, np.concatenate([np.round(z * 8) / 8, np.zeros((400, 1))], 1)


def test_it_is_brute_force_over_all_latents_and_thresholds(world):
    truth, z = world
    found = match_by_firing(columns(truth), columns(z), 400)
    for i in range(3):
        latent, f1, auroc = brute_force(truth[:, i], z)
        assert found.latent[i] == latent == i
        assert float(found.f1[i]) == pytest.approx(f1, abs=1e-12)
        assert float(found.auroc[i]) == pytest.approx(auroc, abs=1e-12)


def test_by_hand():
    # first half (samples 0-3): "z > 0" of latent 0 has hits 0 and 2, no miss, one false alarm (sample 1): F1 .8. Above
    # halfway from 1 to 2 it has both hits and no false alarm: 1. Second half: on at 4 and 5, over 1.5 at 4 and 6: F1
    # 2 * 1 / (2 + 2); positives 2 and 1 against negatives 3 and 0 win 1 + 1 of 4 pairs.
    feature = np.array([[1, 0, 1, 0, 1, 1, 0, 0]]).T
    latent = np.array([[2, 1, 3, 0, 2, 1, 3, 0]]).T
    found = match_by_firing(columns(feature), columns(latent), 8)
    assert (found.latent[0], found.threshold[0], found.f1[0], found.auroc[0]) == (0, 1.5, 0.5, 0.5)


def test_the_other_half_never_decides(world):
    truth, z = world
    changed = z.copy()
    changed[200:] = np.random.default_rng(0).random((200, 7))
    first, second = (match_by_firing(columns(truth), columns(which), 400) for which in (z, changed))
    assert first.latent.tolist() == second.latent.tolist()
    assert first.threshold.tolist() == second.threshold.tolist()
    assert (second.f1 < first.f1).all()


def test_the_best_of_many_junk_latents_scores_chance_on_the_other_half():
    # 400 latents that know nothing: the best one on 50 samples looks good there (in-sample F1 above .5) but on the
    # others its AUROC is 1/2 on average
    rng = np.random.default_rng(1)
    truth, z = rng.random((100, 30)) < 0.2, np.maximum(rng.standard_normal((100, 400)), 0)
    found = match_by_firing(columns(truth), columns(z), 100)
    chosen_on = [
        f1_score(truth[:50, i], z[:50, j] > t)
        for i, (j, t) in enumerate(zip(found.latent.tolist(), found.threshold.tolist(), strict=True))
    ]
    assert np.mean(chosen_on) > 0.5
    assert abs(float(found.auroc.mean()) - 0.5) < 3 * float(found.auroc.std()) / 30**0.5
    assert float(found.f1.mean()) < 0.35


def test_perfect_permuted_and_rescaled_latents(world):
    truth, _ = world
    order, scales = [2, 0, 1], np.array([0.1, 7.0, 3.0])
    found = match_by_firing(columns(truth), columns((truth * scales)[:, order]), 400)
    assert found.latent.tolist() == [order.index(i) for i in range(3)]
    assert found.f1.tolist() == found.auroc.tolist() == [1, 1, 1]


def test_negative_latents_do_not_fire(world):
    truth, _ = world
    found = match_by_firing(columns(truth), columns(-1.0 * truth), 400)
    assert found.latent.tolist() == [-1] * 3
    assert found.f1.tolist() == [0] * 3
    assert found.auroc.tolist() == [0.5] * 3


def test_silent_features_have_no_answer():
    # silent in the first half; silent in the second; on in all of the second: no AUROC, but an F1
    truth = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 1]]).T
    found = match_by_firing(columns(truth), columns(truth), 4)
    assert found.latent.tolist() == [-1, -1, 1]  # equal to latent 2 in the half that chooses: the first one
    assert [isnan(f1) for f1 in found.f1.tolist()] == [True, True, False]
    assert found.f1[2] == 0
    assert all(isnan(auroc) for auroc in found.auroc.tolist())


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_samples_have_no_answer(n):
    found = match_by_firing(columns(np.ones((n, 2))), columns(np.ones((n, 3))), n)
    assert found.latent.tolist() == [-1, -1]
    assert all(isnan(f1) for f1 in found.f1.tolist())


def test_left_out_samples_are_as_if_they_were_never_seen(world):
    truth, z = world
    without = np.flatnonzero(truth[:, 2])
    kept = np.setdiff1d(np.arange(400), without)
    half = min((kept < 200).sum(), (kept >= 200).sum())
    rest = np.concatenate([kept[kept < 200][:half], kept[kept >= 200][:half]])  # so that both are cut in the same place
    also = np.setdiff1d(np.arange(400), rest)
    for i, latents in product((0, 1), (z, np.abs(z - 1))):
        ours = DetectorSearch(columns(latents), 400).best(columns(truth)[i], without=also)
        theirs = DetectorSearch(columns(latents[rest]), len(rest)).best(columns(truth[rest])[i])
        assert tuple(ours) == pytest.approx(tuple(theirs), abs=1e-12)


def test_a_dense_latent_is_found_by_its_strength():
    # latent 0 always fires, twice as strongly with the feature; six others fire rarely, at random
    rng = np.random.default_rng(5)
    truth = rng.random((300, 1)) < 0.2
    z = np.concatenate([1.0 + truth, rng.random((300, 6)) < 0.2], 1)
    found = match_by_firing(columns(truth), columns(z), 300)
    assert (found.latent[0], found.threshold[0], found.f1[0]) == (0, 1.5, 1)


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_the_largest_are_those_of_a_stable_sort(k):
    scores = np.array([0.0, 2, 1, 2, 2, 0, 1])
    assert sorted(largest(scores, k)) == sorted(np.argsort(-scores, kind="stable")[:k])
