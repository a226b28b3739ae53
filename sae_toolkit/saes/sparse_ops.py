"""Sparse encode and decode with hand-written gradients: no `[batch, d_sae]` gradient is ever built.

The plain references (`SparseRows.combine`, `dense_pre_acts`) say in one line what each kernel computes; the tests hold
value and gradient of the kernels against them. The weight gradients are gathered by latent: the (sample, latent) pairs
are sorted by latent once, then each latent's gradient is one weighted sum over the samples that selected it.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts


def dense_pre_acts(
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
) -> Float[Tensor, "batch d_sae"]:
    """(x - b_dec) @ W_enc + b_enc, with the small product b_dec @ W_enc moved into the bias."""
    return torch.addmm(b_enc - b_dec @ W_enc, x, W_enc)


def selected_pre_acts(
    pre_acts: Float[Tensor, "batch d_sae"],
    selection: SparseRows,
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
) -> SparseRows:
    """The pre-activations at the selected places, with gradients to x, W_enc, b_enc and b_dec.

    `pre_acts` is what `dense_pre_acts` gave (computed without a graph) and `selection` says where to read it.
    """
    values: Tensor = SelectedPreActs.apply(pre_acts, x, W_enc, b_enc, b_dec, selection)  # type: ignore[no-untyped-call]
    return SparseRows(values, selection.indices, selection.offsets, selection.shape)


def sparse_decode(latents: SparseRows, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "*batch d_in"]:
    """`latents.to_dense() @ W_dec`, forward and backward in time proportional to the nonzeros."""
    decoded: Tensor = SparseDecode.apply(latents.values, W_dec, latents)  # type: ignore[no-untyped-call]
    return decoded.reshape(*latents.shape[:-1], W_dec.shape[1])


class ColumnOrder:
    """The entries of sparse rows sorted by column: the transpose, as far as a weighted sum per column needs it."""

    def __init__(self, latents: SparseRows) -> None:
        self.order = latents.indices.argsort(stable=True)
        self.rows = latents.rows[self.order]
        self.offsets = offsets_of_counts(torch.bincount(latents.indices, minlength=latents.n_columns))

    def sums(self, weights: Float[Tensor, " nnz"], vectors: Float[Tensor, "n_rows d"]) -> Float[Tensor, "n_columns d"]:
        """For each column the sum of weight * vectors[row] over its entries."""
        return F.embedding_bag(
            self.rows,
            vectors,
            self.offsets,
            mode="sum",
            per_sample_weights=weights[self.order],
            include_last_offset=True,
        )


class SelectedPreActs(torch.autograd.Function):
    """Reads pre-activations at the selected places; its backward never sees the others."""

    @staticmethod
    def forward(
        ctx: Any, pre_acts: Tensor, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, selection: SparseRows
    ) -> Tensor:
        ctx.save_for_backward(x, W_enc, b_dec)
        ctx.selection = selection
        return pre_acts.detach()[selection.rows, selection.indices]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, W_enc, b_dec = ctx.saved_tensors
        selection: SparseRows = ctx.selection
        grad_b_enc = W_enc.new_zeros(W_enc.shape[1]).index_add_(0, selection.indices, grad)
        grad_W_enc = ColumnOrder(selection).sums(grad, x - b_dec).T
        grad_b_dec = -(W_enc @ grad_b_enc)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_rows = SparseRows(grad, selection.indices, selection.offsets, (x.shape[0], W_enc.shape[1]))
            grad_x = grad_rows.combine(W_enc.T.contiguous())
        return None, grad_x, grad_W_enc, grad_b_enc, grad_b_dec, None


class SparseDecode(torch.autograd.Function):
    """latents @ W_dec from the nonzeros alone, with gradients to the values and W_dec."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, latents: SparseRows) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.latents = latents
        return SparseRows(values, latents.indices, latents.offsets, (latents.n_rows, latents.n_columns)).combine(W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        grad = grad.contiguous()
        values, W_dec = ctx.saved_tensors
        latents: SparseRows = ctx.latents
        grad_W_dec = ColumnOrder(latents).sums(values, grad) if ctx.needs_input_grad[1] else None
        return gathered_dots(grad, W_dec, latents.rows, latents.indices), grad_W_dec, None


def gathered_dots(
    left: Float[Tensor, "n_left d"],
    right: Float[Tensor, "n_right d"],
    left_rows: Int[Tensor, " nnz"],
    right_rows: Int[Tensor, " nnz"],
) -> Float[Tensor, " nnz"]:
    """left[left_rows] . right[right_rows], pair by pair."""
    return torch.einsum("pd,pd->p", left[left_rows], right[right_rows])
