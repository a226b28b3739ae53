"""Reconstructions from nested prefixes of the dictionary in one pass: what Matryoshka SAEs need in every step.

The entries of each sample are split at the ends of the prefixes into groups, each group is decoded by itself, and sums
over the groups so far are the reconstructions. Decoding all prefixes costs as much as decoding the longest, and so does
its gradient: that of a group is the sum over all prefixes that hold it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.sparse_ops import sparse_decode
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts


def nested_decode(
    latents: SparseRows, W_dec: Float[Tensor, "d_sae d_in"], ends: Sequence[int]
) -> Float[Tensor, "*batch n_prefixes d_in"]:
    """z[:end] @ W_dec[:end] for every end; they increase, and the last is d_sae. No bias is added."""
    sums: Tensor = RunningSums.apply(sparse_decode(split_columns(latents, ends), W_dec))  # type: ignore[no-untyped-call]
    return sums


class RunningSums(torch.autograd.Function):
    """`groups.cumsum(-2)` for few groups of long vectors: sums of whole vectors, where `cumsum` goes number by number
    and its gradient is turned round twice."""

    @staticmethod
    def forward(ctx: Any, groups: Tensor) -> Tensor:
        del ctx
        sums = groups.clone()
        for i in range(1, sums.shape[-2]):
            sums[..., i, :] += sums[..., i - 1, :]
        return sums

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        del ctx
        sums = grads[0].clone(memory_format=torch.contiguous_format)
        for i in range(sums.shape[-2] - 1, 0, -1):
            sums[..., i - 1, :] += sums[..., i, :]
        return sums


def split_columns(latents: SparseRows, ends: Sequence[int]) -> SparseRows:
    """Each row as several, one for the columns up to each end: `[*batch n_groups n_columns]`."""
    if not ends or ends[-1] != latents.n_columns or any(b <= a for a, b in zip((0, *ends), ends, strict=False)):
        raise ValueError(
            f"nested prefixes: ends {list(ends)} given for {latents.n_columns} latents. They must be positive, "
            f"increase strictly, and end with {latents.n_columns}."
        )
    bounds = torch.tensor(ends, device=latents.indices.device)
    bags = latents.rows * len(ends) + torch.bucketize(latents.indices, bounds, right=True)
    order = bags.argsort(stable=True)
    counts = torch.bincount(bags, minlength=latents.n_rows * len(ends))
    shape = (*latents.shape[:-1], len(ends), latents.n_columns)
    return SparseRows(latents.values[order], latents.indices[order], offsets_of_counts(counts), shape)
