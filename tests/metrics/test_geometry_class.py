import pytest
import torch
from polytopes import CORNERS, columns, digon, polygon, rotation, square_antiprism, tetrahedron

from sae_toolkit.metrics.geometry_class import arrangement_in_plane, arrangement_shares, feature_groups, geometry_class


def turned(W: torch.Tensor, degrees: float, feature: int) -> torch.Tensor:
    """W in the plane with one feature turned."""
    a = torch.tensor(degrees).deg2rad().double()
    W = W.clone()
    W[:, feature] = torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])]) @ W[:, feature]
    return W


@pytest.mark.parametrize("name", CORNERS)
def test_a_polytope_is_one_group_with_its_name(name):
    corners, _ = CORNERS[name]
    assert feature_groups(corners.T) == [(name, tuple(range(len(corners))))]


@pytest.mark.parametrize("name", CORNERS)
def test_small_errors_leave_the_name(name):
    corners, _ = CORNERS[name]
    noise = 0.03 * torch.randn(corners.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert [group.shape for group in feature_groups((corners + noise).T)] == [name]


def test_factors_in_dimensions_of_their_own_are_told_apart():
    W = columns(polygon(5), digon(), torch.ones(1, 1), tetrahedron())
    assert feature_groups(rotation(7) @ W) == [
        ("pentagon", (0, 1, 2, 3, 4)),
        ("digon", (5, 6)),
        ("dedicated", (7,)),
        ("tetrahedron", (8, 9, 10, 11)),
    ]


def test_what_is_not_represented_is_in_no_group():
    W = torch.cat([polygon(3).T, torch.full((2, 1), 0.3, dtype=torch.float64)], dim=1)
    assert feature_groups(W) == [("triangle", (0, 1, 2))]


def test_a_permutation_of_the_features_moves_the_groups_along():
    W = columns(digon(), polygon(3))[:, [4, 0, 3, 1, 2]]
    assert feature_groups(W) == [("triangle", (0, 2, 4)), ("digon", (1, 3))]


def test_a_model_in_words():
    octahedron = columns(digon(), digon(), digon())
    two = columns(square_antiprism())[:, :6]
    empty = torch.zeros(3, 6)
    triangle_and_digon = torch.cat([columns(polygon(3), digon()), torch.zeros(3, 1)], dim=1)
    words = geometry_class(torch.stack([octahedron, two, empty, triangle_and_digon]).double())
    assert words == ["3 digon", "1 other", "nothing represented", "1 triangle + 1 digon"]


def test_side_by_side_features_are_no_polytope():
    assert [g.shape for g in feature_groups(torch.tensor([[1.0, 0.9], [0.0, 0.436]]))] == ["other"]


def test_the_arrangements_of_five_features_in_a_plane():
    zero = torch.zeros(2, 3, dtype=torch.float64)
    orthogonal = torch.cat([torch.eye(2, dtype=torch.float64), zero], dim=1)
    square = torch.cat([polygon(4).T, zero[:, :1]], dim=1)
    pentagon = 1.16 * polygon(5).T
    digons_off = turned(square, 30, 0)
    words = arrangement_in_plane(torch.stack([orthogonal, square, pentagon, digons_off, torch.zeros_like(square)]))
    assert words == ["2 orthogonal", "4 antipodal", "5 pentagon", "other", "other"]


@pytest.mark.parametrize(("degrees", "name"), [(9.0, "5 pentagon"), (-9.0, "5 pentagon"), (11.0, "other")])
def test_a_pentagon_may_be_off_by_ten_degrees(degrees, name):
    assert arrangement_in_plane(turned(polygon(5).T, degrees, 0)[None]) == [name]


def test_two_features_at_60_degrees_are_not_orthogonal():
    W = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.866, 0.0]])
    assert arrangement_in_plane(W[None]) == ["other"]


def test_three_hidden_dimensions_are_no_plane():
    with pytest.raises(ValueError, match="n_hidden=3"):
        arrangement_in_plane(torch.zeros(1, 3, 5))


def test_arrangements_are_counted():
    found = ["5 pentagon", "other", "5 pentagon", "2 orthogonal"]
    assert arrangement_shares(found) == {"orthogonal": 0.25, "antipodal": 0.0, "pentagon": 0.5, "other": 0.25}


def test_shares_of_no_model_are_refused():
    with pytest.raises(ValueError, match="no arrangement given"):
        arrangement_shares([])
