import pytest
import torch
from polytopes import CORNERS, tetrahedron

from sae_toolkit.metrics.interference import (
    dimensionality_of_rows,
    interference_of_rows,
    interference_scores,
)


@pytest.mark.parametrize("name", CORNERS)
def test_dimensionality_of_polytopes(name):
    corners, share = CORNERS[name]
    assert dimensionality_of_rows(1.16 * corners).tolist() == pytest.approx([share] * len(corners), abs=1e-6)


def test_a_feature_without_norm_has_no_dimension():
    assert dimensionality_of_rows(torch.tensor([[2.0, 0.0], [0.0, 0.0]])).tolist() == [1.0, 0.0]


def test_interference_is_squared_off_diagonal_and_unit_row():
    # hat W_0 = (1, 0): (W_1 . hat W_0)^2 = 9; hat W_1 = (.6, .8): (2 * .6)^2 = 1.44
    W = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    assert interference_of_rows(W).tolist() == pytest.approx([9.0, 1.44])


def test_scores_of_an_equiangular_frame_meet_the_welch_bound():
    scores = {name: score.value for name, score in interference_scores(tetrahedron()).items()}
    assert scores["decoder_coherence"] == pytest.approx(1 / 3)
    assert scores["decoder_mean_abs_cosine"] == pytest.approx(1 / 3)
    assert scores["decoder_mean_squared_cosine"] == pytest.approx(1 / 9)
    assert scores["welch_gap"] == pytest.approx(0, abs=1e-12)
    assert scores["frame_potential_ratio"] == pytest.approx(1)
    assert scores["feature_dimensionality"] == pytest.approx(3 / 4)


def test_orthogonal_rows_do_not_interfere():
    scores = {name: score.value for name, score in interference_scores(3 * torch.eye(5)[:3]).items()}
    assert scores["decoder_coherence"] == scores["decoder_mean_abs_cosine"] == scores["welch_gap"] == 0
    assert scores["frame_potential_ratio"] == 1


def test_random_frames_reach_the_stated_coherence(features):
    scores = interference_scores(features)
    mu = scores["decoder_coherence"].value
    assert scores["welch_gap"].value == pytest.approx((mu - 0.1085) / (1 - 0.1085), abs=1e-4)
    assert scores["decoder_coherence"].value == pytest.approx(0.491, rel=0.08)
    assert scores["decoder_mean_squared_cosine"].value == pytest.approx(1 / 64, rel=0.05)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_have_no_overlap(n):
    score = interference_scores(torch.ones(n, 3))["decoder_mean_abs_cosine"]
    assert score.value != score.value


def test_the_floor_is_what_random_directions_reach(features):
    scores = interference_scores(features)
    for name in ("decoder_coherence", "decoder_mean_abs_cosine", "decoder_mean_squared_cosine", "welch_gap"):
        assert scores[name].value == pytest.approx(scores[name].floor, rel=0.1), name


def test_a_duplicate_raises_the_coherence_far_above_the_floor(features):
    doubled = interference_scores(torch.cat([features, features[:1]]))["decoder_coherence"]
    assert doubled.value == pytest.approx(1)
    assert doubled.floor < 0.6


def test_signs_scales_and_order_of_rows_change_nothing(features):
    g = torch.Generator().manual_seed(4)
    signs = torch.where(torch.rand(256, 1, generator=g) < 0.5, -1, 1)
    changed = (features * signs * (0.1 + torch.rand(256, 1, generator=g)))[torch.randperm(256, generator=g)]
    scores, others = interference_scores(features), interference_scores(changed)
    for name in ("decoder_coherence", "decoder_mean_abs_cosine", "decoder_mean_squared_cosine", "welch_gap"):
        assert others[name].value == pytest.approx(scores[name].value, abs=1e-6), name
