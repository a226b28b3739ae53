from math import inf

import pytest
import torch
from polytopes import CORNERS, columns, polygon, rotation

from sae_toolkit.metrics.geometry import (
    dimensions_per_feature,
    feature_cosines,
    feature_dimensionality,
    feature_interference,
    feature_norms,
    frobenius_count,
    geometry_scores,
    gram,
    plateau_scores,
    represented,
    superposition_index,
)


def random_models(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CORNERS)
def test_dimensionality_of_a_polytope_is_exact(name):
    corners, share = CORNERS[name]
    D = feature_dimensionality(1.16 * corners.T)
    assert D.tolist() == pytest.approx([share] * len(corners), abs=1e-6)


def test_all_measures_agree_with_a_loop():
    W = random_models(3, 4, 6)
    for i in range(3):
        vectors = [W[i, :, j].double() for j in range(6)]
        for j, v in enumerate(vectors):
            unit = v / v.norm()
            along = [float(unit @ other) ** 2 for other in vectors]
            assert float(feature_norms(W)[i, j]) == pytest.approx(float(v.norm()))
            assert float(feature_dimensionality(W)[i, j]) == pytest.approx(float(v @ v) / sum(along))
            assert float(feature_interference(W)[i, j]) == pytest.approx(sum(along) - along[j])
            assert gram(W)[i, j].tolist() == pytest.approx([float(v @ other) for other in vectors])


def test_a_feature_without_norm_has_no_dimension_and_no_interference():
    W = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert feature_dimensionality(W).tolist() == [1.0, 0.0]
    assert feature_interference(W).tolist() == [0.0, 0.0]


def test_the_pentagon_is_overcounted_by_its_norms():
    # 5 * 1.16^2 = 6.728 "features" in 2 dimensions
    W = 1.16 * polygon(5).T
    assert float(frobenius_count(W)) == pytest.approx(6.728)
    assert float(dimensions_per_feature(W)) == pytest.approx(2 / 6.728)
    assert float(superposition_index(W)) == 2.5


def test_a_projector_counts_its_dimensions_though_nothing_is_represented():
    # 2 dimensions spread evenly over 20 features: every norm is sqrt(2 / 20) = .32
    angles = torch.arange(20) * 2 * torch.pi / 20
    W = torch.stack([angles.cos(), angles.sin()]) / 10**0.5
    assert float(frobenius_count(W)) == pytest.approx(2)
    assert int(represented(W).sum()) == 0


def test_no_weights_give_no_features():
    W = torch.zeros(2, 3, 4)
    assert dimensions_per_feature(W).tolist() == [inf, inf]
    assert feature_dimensionality(W).abs().sum() == 0


def test_the_threshold_of_a_represented_feature_is_one_half():
    assert represented(torch.tensor([[0.5, 0.51, 0.0]])).tolist() == [False, True, False]


def test_shares_sum_to_at_most_the_rank_and_to_it_in_a_tight_frame():
    assert feature_dimensionality(random_models(50, 4, 9)).sum(dim=1).max() <= 4 + 1e-9
    tight = columns(*(corners for corners, _ in CORNERS.values()))
    assert float(feature_dimensionality(tight).sum()) == pytest.approx(tight.shape[0])


@pytest.mark.parametrize("measure", [gram, feature_dimensionality, feature_interference, feature_norms])
def test_a_rotation_of_the_hidden_space_changes_nothing(measure):
    W = random_models(2, 5, 8).double()
    torch.testing.assert_close(measure(rotation(5) @ W), measure(W))


@pytest.mark.parametrize("measure", [feature_dimensionality, feature_interference, feature_norms])
def test_a_permutation_of_the_features_permutes_the_result(measure):
    W = random_models(2, 5, 8).double()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(measure(W[:, :, order]), measure(W)[:, order])


def test_any_number_of_leading_dimensions():
    W = random_models(2, 3, 4, 6)
    assert feature_dimensionality(W).shape == (2, 3, 6)
    assert superposition_index(W).shape == (2, 3)
    assert superposition_index(W[0, 0]).shape == ()


def test_cosines_do_not_depend_on_norms():
    corners = polygon(5)
    W = (corners * torch.tensor([1.0, 2.0, 0.5, 3.0, 1.16])[:, None]).T
    assert torch.allclose(feature_cosines(W), (corners @ corners.T).double(), atol=1e-6)


def test_a_feature_without_norm_has_no_cosine():
    assert feature_cosines(torch.tensor([[2.0, 0.0], [0.0, 0.0]])).tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_scores_of_a_model_by_hand():
    # a digon; a feature without norm; on the second axis a kept feature and a short one that counts as ignored
    W = torch.tensor([[1.0, -1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, -0.4]])
    found = geometry_scores(W)
    assert (found["represented"], found["out_of_order"]) == (3, 1)
    assert found["dimensions_per_feature"] == pytest.approx(2 / 3.16)
    # on the first axis 1 and 1; on the second feature 3 feels 0.4^2
    assert found["mean_interference"] == pytest.approx((1 + 1 + 0.16) / 3)
    assert found["summed_dimensionality"] == pytest.approx(1 / 2 + 1 / 2 + 1 / 1.16 + 0.16 / 1.16)


def test_a_model_that_represents_nothing_has_scores():
    found = geometry_scores(torch.full((2, 3), 0.1))
    assert (found["represented"], found["mean_interference"], found["out_of_order"]) == (0, 0, 0)


def test_the_plateau_by_hand():
    # slopes against p: 0.1 / 0.2, 0.4 / 0.1, 0.01 / 0.2
    p, dimensions = torch.tensor([0.9, 0.7, 0.6, 0.4]), torch.tensor([1.0, 0.9, 0.5, 0.49])
    found = plateau_scores(p, dimensions)
    assert found["steepest_p"] == pytest.approx(0.65)
    assert found["smallest_fall"] == pytest.approx(0.01, abs=1e-6)


def test_a_plateau_needs_falling_probabilities():
    with pytest.raises(ValueError, match="falling order"):
        plateau_scores(torch.tensor([0.1, 0.2]), torch.tensor([0.5, 0.6]))
