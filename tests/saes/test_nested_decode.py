"""Nested prefixes against one dense product for each of them."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from toy import gaussian

from sae_toolkit.saes.nested_decode import nested_decode, split_columns
from sae_toolkit.sparse_rows import SparseRows


def ragged(values: Tensor | None = None) -> SparseRows:
    """Four rows of ten columns: empty, unsorted, full, one entry at the last column."""
    columns = [[], [7, 0, 3, 4], list(range(10)), [9]]
    offsets = torch.tensor([0, 0, 4, 14, 15])
    indices = torch.tensor([column for row in columns for column in row])
    return SparseRows(gaussian(15).double() if values is None else values, indices, offsets, (2, 2, 10))


def reference(latents: SparseRows, W_dec: Tensor, ends: Sequence[int]) -> Tensor:
    dense = latents.to_dense()
    return torch.stack([dense[..., :end] @ W_dec[:end] for end in ends], dim=-2)


@pytest.mark.parametrize("ends", [[10], [1, 10], [3, 4, 8, 10], list(range(1, 11))], ids=str)
def test_value_and_gradients_are_those_of_dense_products(ends: list[int]) -> None:
    values, W_dec = gaussian(15).double().requires_grad_(), gaussian(10, 3, seed=1).double().requires_grad_()
    weight = gaussian(2, 2, len(ends), 3, seed=2).double()
    ours, expected = nested_decode(ragged(values), W_dec, ends), reference(ragged(values), W_dec, ends)
    torch.testing.assert_close(ours, expected)
    given = torch.autograd.grad((ours**2 * weight).sum(), (values, W_dec))
    wanted = torch.autograd.grad((expected**2 * weight).sum(), (values, W_dec))
    for mine, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_gradcheck() -> None:
    inputs = (gaussian(15).double().requires_grad_(), gaussian(10, 3, seed=1).double().requires_grad_())
    assert torch.autograd.gradcheck(lambda values, W_dec: nested_decode(ragged(values), W_dec, [3, 4, 10]), inputs)


def test_splitting_by_hand() -> None:
    """Row [7, 0, 3, 4] at ends 4 and 10: columns 0 and 3, then 7 and 4, each in the order they had."""
    split = split_columns(ragged(), [4, 10])
    assert split.shape == (2, 2, 2, 10)
    assert split.offsets.tolist() == [0, 0, 0, 2, 4, 8, 14, 14, 15]
    assert split.indices[:4].tolist() == [0, 3, 7, 4]


@pytest.mark.parametrize("ends", [[], [3], [3, 11], [0, 10], [5, 5, 10], [6, 2, 10]], ids=str)
def test_impossible_ends_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="10 latents"):
        nested_decode(ragged(), gaussian(10, 3), ends)
