"""Sparse rows against the dense tensors they stand for."""

import pytest
import torch
from torch import Tensor
from toy import gaussian

from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts


def dense_example(*shape: int) -> Tensor:
    return gaussian(*shape).relu() if 0 not in shape else torch.zeros(shape)


SHAPES = [(4,), (1, 4), (5, 4), (2, 3, 4), (0, 4), (2, 0, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_there_and_back(shape: tuple[int, ...]) -> None:
    dense = dense_example(*shape)
    rows = SparseRows.from_dense(dense)
    assert rows.shape == shape
    assert torch.equal(rows.to_dense(), dense)
    assert rows.values.numel() == int((dense != 0).sum())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_combine_is_a_matrix_product(shape: tuple[int, ...]) -> None:
    dense, vectors = dense_example(*shape), gaussian(4, 3, seed=1)
    torch.testing.assert_close(SparseRows.from_dense(dense).combine(vectors), dense @ vectors)


def test_by_hand() -> None:
    rows = SparseRows.from_dense(torch.tensor([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 0.0, 0.0]]))
    assert rows.values.tolist() == [2.0, 3.0, 4.0]
    assert rows.indices.tolist() == [1, 2, 0]
    assert rows.offsets.tolist() == [0, 2, 2, 3]
    assert rows.rows.tolist() == [0, 0, 2]
    assert (rows.n_rows, rows.n_columns) == (3, 3)
    assert rows.column_counts().tolist() == [1, 1, 1]


@pytest.mark.parametrize("leading", [(), (3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("k", [1, 2])
def test_from_topk(leading: tuple[int, ...], k: int) -> None:
    dense = gaussian(*leading, 5) if 0 not in leading else torch.zeros(*leading, 5)
    top = dense.topk(k, dim=-1)
    rows = SparseRows.from_topk(top.values, top.indices, 5)
    expected = torch.zeros_like(dense).scatter(-1, top.indices, top.values)
    assert torch.equal(rows.to_dense(), expected)


def test_an_explicit_zero_is_not_counted() -> None:
    rows = SparseRows.from_topk(torch.tensor([[1.0, 0.0]]), torch.tensor([[2, 0]]), 3)
    assert rows.column_counts().tolist() == [0, 0, 1]


def test_gradients_flow_through_the_values() -> None:
    dense = dense_example(5, 4).double().requires_grad_()
    weight = gaussian(5, 4, seed=3).double()
    (ours,) = torch.autograd.grad((SparseRows.from_dense(dense).to_dense() * weight).sum(), dense)
    torch.testing.assert_close(ours, weight * (dense != 0))


def test_reshaping_the_batch_keeps_the_rows() -> None:
    dense = dense_example(6, 4)
    assert torch.equal(SparseRows.from_dense(dense).reshape_batch((2, 3)).to_dense(), dense.reshape(2, 3, 4))


def test_offsets_by_hand() -> None:
    assert offsets_of_counts(torch.tensor([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of_counts(torch.zeros(0, dtype=torch.int64)).tolist() == [0]
