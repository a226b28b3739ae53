"""The hot kernels against the one-line formulas that they stand for, in value and in every gradient."""

from itertools import permutations

import pytest
import torch
from torch import Tensor
from toy import gaussian

from sae_toolkit.saes.sparse_ops import dense_pre_acts, gathered_dots, row_dots, sparse_decode, with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts


def leaf(*shape: int, seed: int) -> Tensor:
    return gaussian(*shape, seed=seed).double().requires_grad_()


def ragged(n_rows: int = 5, n_columns: int = 6, *, seed: int = 0) -> Tensor:
    """A mask with empty rows, full rows, unused columns: row 0 is empty, row 1 full, column 5 only in row 1."""
    mask = gaussian(n_rows, n_columns, seed=seed) > 0
    mask[0], mask[:, -1], mask[1] = False, False, True
    return mask


def selection_of(mask: Tensor) -> SparseRows:
    rows, columns = mask.nonzero(as_tuple=True)
    offsets = offsets_of_counts(torch.bincount(rows, minlength=mask.shape[0]))
    return SparseRows(torch.zeros(len(rows), dtype=torch.float64), columns, offsets, tuple(mask.shape))


def sparse_pre_acts(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, mask: Tensor) -> SparseRows:
    known = dense_pre_acts(x, W_enc, b_enc, b_dec).detach()[mask]
    return with_encoder_gradient(selection_of(mask).with_values(known), x, W_enc, b_enc, b_dec)


def test_dense_pre_acts_is_its_formula() -> None:
    x, W_enc, b_enc, b_dec = leaf(5, 3, seed=1), leaf(3, 6, seed=2), leaf(6, seed=3), leaf(3, seed=4)
    torch.testing.assert_close(dense_pre_acts(x, W_enc, b_enc, b_dec), (x - b_dec) @ W_enc + b_enc)


def test_selected_pre_acts_passes_gradcheck_in_every_input() -> None:
    inputs = (leaf(5, 3, seed=1), leaf(3, 6, seed=2), leaf(6, seed=3), leaf(3, seed=4))
    mask = ragged()
    assert torch.autograd.gradcheck(lambda *arguments: sparse_pre_acts(*arguments, mask).values, inputs)


def test_selected_pre_acts_equals_dense_autograd() -> None:
    inputs = (leaf(5, 3, seed=1), leaf(3, 6, seed=2), leaf(6, seed=3), leaf(3, seed=4))
    mask, weight = ragged(), gaussian(5, 6, seed=9).double()
    x, W_enc, b_enc, b_dec = inputs
    dense = ((((x - b_dec) @ W_enc + b_enc) * mask) ** 2 * weight).sum()
    sparse = (sparse_pre_acts(*inputs, mask).to_dense() ** 2 * weight).sum()
    torch.testing.assert_close(sparse, dense)
    for ours, theirs in zip(torch.autograd.grad(sparse, inputs), torch.autograd.grad(dense, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sparse_decode_passes_gradcheck_in_every_input() -> None:
    selection = selection_of(ragged())
    inputs = (leaf(selection.values.numel(), seed=1), leaf(6, 3, seed=2))

    def decode(values: Tensor, W_dec: Tensor) -> Tensor:
        return sparse_decode(SparseRows(values, selection.indices, selection.offsets, selection.shape), W_dec)

    assert torch.autograd.gradcheck(decode, inputs)


@pytest.mark.parametrize("transposed", [False, True])
def test_sparse_decode_equals_dense_autograd(transposed: bool) -> None:
    """Also where the incoming gradient is not contiguous."""
    selection = selection_of(ragged())
    values, W_dec, target = leaf(selection.values.numel(), seed=1), leaf(6, 3, seed=2), gaussian(3, 5, seed=3).double()
    latents = SparseRows(values, selection.indices, selection.offsets, selection.shape)

    def loss(decoded: Tensor) -> Tensor:
        return (decoded.T - target).square().sum() if transposed else (decoded - target.T).square().sum()

    sparse, dense = loss(sparse_decode(latents, W_dec)), loss(latents.to_dense() @ W_dec)
    torch.testing.assert_close(sparse, dense)
    expected = torch.autograd.grad(dense, (values, W_dec))
    for ours, theirs in zip(torch.autograd.grad(sparse, (values, W_dec)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_kernels_take_an_expanded_gradient() -> None:
    """`.sum()` sends back a gradient whose strides are all 0."""
    selection = selection_of(ragged())
    values, W_dec = leaf(selection.values.numel(), seed=1), leaf(6, 3, seed=2)
    latents = SparseRows(values, selection.indices, selection.offsets, selection.shape)
    sparse_decode(latents, W_dec).sum().backward()
    torch.testing.assert_close(values.grad, W_dec.sum(1)[selection.indices])


def test_nothing_selected_gives_zero_gradients() -> None:
    inputs = (leaf(5, 3, seed=1), leaf(3, 6, seed=2), leaf(6, seed=3), leaf(3, seed=4))
    W_dec = leaf(6, 3, seed=5)
    latents = sparse_pre_acts(*inputs, torch.zeros(5, 6, dtype=torch.bool))
    sparse_decode(latents, W_dec).sum().backward()
    assert all(not tensor.grad.any() for tensor in (*inputs, W_dec))


def test_no_dense_gradient_is_built() -> None:
    """The kernels' graph holds no `[batch, d_sae]` tensor that autograd would fill."""
    inputs = (leaf(5, 3, seed=1), leaf(3, 6, seed=2), leaf(6, seed=3), leaf(3, seed=4))
    latents = sparse_pre_acts(*inputs, ragged())
    assert latents.values.grad_fn.name() == "SelectedPreActsBackward"
    assert {type(node).__name__ for node, _ in latents.values.grad_fn.next_functions if node} == {"AccumulateGrad"}


def test_gathered_dots_by_hand() -> None:
    left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    # 1*5 + 2*6 = 17; 3*5 + 4*6 = 39; 3*7 + 4*8 = 53
    for order in permutations(range(3)):
        dots = gathered_dots(left, right, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), order=torch.tensor(order))
        assert dots.tolist() == [17.0, 39.0, 53.0]


def test_row_dots_by_hand() -> None:
    left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    assert row_dots(left, right).tolist() == [17.0, 53.0]  # 1*5 + 2*6, 3*7 + 4*8
    assert row_dots(left.T, right).tolist() == [23.0, 46.0]  # columns as rows: 1*5 + 3*6, 2*7 + 4*8
