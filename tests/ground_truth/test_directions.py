import math

import pytest
import torch

from sae_toolkit.ground_truth import directions as d

MAKERS = [
    (d.random_directions, 9, 4),
    (d.orthogonal_directions, 4, 6),
    (d.antipodal_directions, 7, 5),
    (d.low_coherence_directions, 6, 3),
    (d.gram_penalty_directions, 9, 4),
]


def largest_cosine(rows):
    """Slow reference: all pairs, float64."""
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    return max(abs(float(unit[i] @ unit[j])) for i in range(len(unit)) for j in range(i))


@pytest.mark.parametrize(("make", "n", "d_in"), MAKERS)
def test_rows_are_unit_vectors(make, n, d_in):
    rows = make(n, d_in, seed=3)
    assert rows.shape == (n, d_in)
    assert torch.allclose(rows.norm(dim=1), torch.ones(n), atol=1e-6)


@pytest.mark.parametrize(("make", "n", "d_in"), MAKERS)
def test_seed_decides(make, n, d_in):
    assert torch.equal(make(n, d_in, seed=3), make(n, d_in, seed=3))
    assert not torch.allclose(make(n, d_in, seed=3), make(n, d_in, seed=4))


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    for make, n, d_in in MAKERS:
        make(n, d_in, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_orthogonal_rows_are_orthogonal():
    rows = d.orthogonal_directions(5, 8, seed=0)
    assert torch.allclose(rows @ rows.T, torch.eye(5), atol=1e-6)


def test_antipodal_pairs():
    rows = d.antipodal_directions(6, 3, seed=0)
    expected = torch.kron(torch.eye(3), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert torch.allclose(rows @ rows.T, expected, atol=1e-6)


@pytest.mark.parametrize(("make", "n", "d_in"), [(d.orthogonal_directions, 5, 4), (d.antipodal_directions, 9, 4)])
def test_too_many_directions_raise(make, n, d_in):
    with pytest.raises(ValueError, match="at most"):
        make(n, d_in, seed=0)


@pytest.mark.parametrize("make", [m for m, _, _ in MAKERS] + [d.welch_bound])
def test_sizes_below_one_raise(make):
    with pytest.raises(ValueError, match="at least 1"):
        make(0, 4) if make is d.welch_bound else make(0, 4, seed=0)


def test_welch_bound_by_hand():
    # 3 vectors in the plane: sqrt(1 / (2 * 2)) = 1/2, reached by the directions of a triangle
    assert d.welch_bound(3, 2) == pytest.approx(0.5)
    assert d.welch_bound(256, 64) == pytest.approx(math.sqrt(192 / (64 * 255)))
    assert d.welch_bound(4, 4) == 0


def test_triangle_reaches_the_welch_bound():
    angles = torch.tensor([0.0, 120.0, 240.0]).deg2rad()
    triangle = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert d.welch_gap(triangle) == pytest.approx(0, abs=1e-6)


def test_repeated_row_has_gap_one():
    assert d.welch_gap(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1)


@pytest.mark.parametrize("chunk_rows", [1, 3, 1000])
def test_coherence_equals_all_pairs(chunk_rows):
    rows = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    assert d.coherence(rows, chunk_rows=chunk_rows) == pytest.approx(largest_cosine(rows), abs=1e-6)


def test_low_coherence_is_far_better_than_random_and_not_better_than_possible():
    found = d.coherence(d.low_coherence_directions(256, 64, seed=0))
    assert d.welch_bound(256, 64) <= found < 0.2
    assert d.coherence(d.random_directions(256, 64, seed=0)) > 0.4


def test_low_coherence_finds_the_icosahedron():
    # 6 lines in 3 dimensions: the best are the diagonals of the icosahedron, |cos| = 1 / sqrt(5)
    best = min(d.coherence(d.low_coherence_directions(6, 3, seed=s)) for s in range(3))
    assert best == pytest.approx(1 / math.sqrt(5), abs=0.01)


def test_gram_penalty_equals_autograd_on_the_full_gram():
    n, d_in = 12, 5
    rows = d.random_directions(n, d_in, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([rows], lr=3e-4)
    for _ in range(4):
        gram = rows @ rows.T
        diagonal = gram.diagonal()
        loss = (gram - torch.diag(diagonal)).square().sum() + n * (diagonal - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = torch.nn.functional.normalize(rows.detach(), dim=1)
    assert torch.allclose(d.gram_penalty_directions(n, d_in, seed=1, n_steps=4), expected, atol=1e-5)
