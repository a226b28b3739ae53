import numpy as np
import pytest
import torch

from sae_toolkit.analysis import Factored
from sae_toolkit.analysis import factored as module


def drawn(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.fixture
def small():
    return Factored(*drawn((7, 3), (3, 5)))


def test_norm_and_eigenvalues_are_those_of_the_whole_matrix(small):
    assert small.norm() == pytest.approx(float((small.left @ small.right).norm()), rel=1e-6)
    square = Factored(*drawn((6, 2), (2, 6)))
    whole = np.linalg.eigvals((square.left @ square.right).double().numpy())
    largest = sorted(whole, key=abs)[-2:]
    assert sorted(square.eigenvalues().tolist(), key=abs) == pytest.approx(largest, abs=1e-6)
    with pytest.raises(ValueError, match="square"):
        small.eigenvalues()


def test_products_and_views_are_those_of_the_whole_matrix(small):
    other = Factored(*drawn((5, 2), (2, 4), seed=1))
    whole = small.dense() @ other.dense()
    for product in (small @ other, Factored(small.left, small.right) @ Factored(other.dense(), torch.eye(4))):
        torch.testing.assert_close(product.dense(), whole, atol=1e-5, rtol=1e-5)
    assert (small @ other).left.shape[1] == 2  # the smaller rank of 3 and 2
    torch.testing.assert_close(small.transposed.dense(), small.dense().T)
    torch.testing.assert_close(small.centred().dense(), small.dense() - small.dense().mean(1, keepdim=True))
    sources, targets = drawn((2, 7), (5, 3), seed=2)
    torch.testing.assert_close(small.between(sources, targets).dense(), sources @ small.dense() @ targets)


@pytest.mark.parametrize("most", [5, 11, 2**24])
def test_the_strongest_entries_are_found_whatever_the_chunks(small, most, monkeypatch):
    monkeypatch.setattr(module, "MOST_ENTRIES", most)
    whole = small.left @ small.right
    order = whole.flatten().abs().argsort(descending=True)[:4]
    found = small.strongest(4)
    assert (found.rows * 5 + found.columns).tolist() == order.tolist()
    torch.testing.assert_close(found.values, whole.flatten()[order])
    weights = torch.rand(7, 5, generator=torch.Generator().manual_seed(3))
    weighed = (whole * weights).flatten()
    found = small.strongest(4, lambda rows: weights[rows])
    torch.testing.assert_close(found.values, weighed[weighed.abs().argsort(descending=True)[:4]])
    values, columns = small.top_in_rows(2)
    torch.testing.assert_close(values, whole.topk(2, dim=1).values)
    assert torch.equal(columns, whole.topk(2, dim=1).indices)
    assert len(small.strongest(1000).values) == 35


def test_a_matrix_that_is_too_large_is_not_built(small, monkeypatch):
    monkeypatch.setattr(module, "MOST_ENTRIES", 34)
    with pytest.raises(ValueError, match="7 x 5 entries asked"):
        small.dense()
