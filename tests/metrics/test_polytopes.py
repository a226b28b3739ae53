import pytest
import torch

from sae_toolkit.metrics.polytopes import NONE, POLYTOPES, nearest_polytope, polytope_shares


def names(values: list[float], **options: float) -> list[str]:
    indices = nearest_polytope(torch.tensor(values), **options).tolist()
    return ["none" if i == NONE else POLYTOPES[i].name for i in indices]


def test_each_share_belongs_to_its_polytope():
    # Elhage et al. 2022: 1, 3/4, 2/3, 1/2, 2/5, 3/8 and 0 for a feature that is not learned
    assert names([1.0, 0.75, 0.6667, 0.5, 0.4, 0.375, 0.0]) == [
        "dedicated", "tetrahedron", "triangle", "digon", "pentagon", "square antiprism", "not learned",
    ]  # fmt: skip


def test_between_neighbours_the_nearer_one_counts():
    assert names([0.386, 0.389]) == ["square antiprism", "pentagon"]


def test_what_is_near_nothing_is_none():
    assert names([0.45, 0.9, 0.52, 0.53]) == ["none", "none", "digon", "none"]
    assert names([0.53], tolerance=0.04) == ["digon"]


def test_shares_are_of_the_counted_features():
    D = torch.tensor([[0.5, 0.5, 0.4], [0.51, 0.0, 0.45]])
    shares = polytope_shares(D, D > 0)
    assert shares == {
        "dedicated": 0, "tetrahedron": 0, "triangle": 0, "digon": 0.6, "pentagon": 0.2, "square antiprism": 0,
        "not learned": 0, "none": 0.2,
    }  # fmt: skip


def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match="no feature is counted"):
        polytope_shares(torch.ones(3), torch.zeros(3, dtype=torch.bool))
