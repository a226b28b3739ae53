"""Sparse encode and decode with hand-written gradients: no `[batch, d_sae]` gradient is ever built.

The plain references (`SparseRows.combine`, `dense_pre_acts`) say in one line what each kernel computes; the tests hold
value and gradient of the kernels against them. The weight gradients are gathered by latent: the (sample, latent) pairs
are sorted by latent once, then each latent's gradient is one weighted sum over the samples that selected it.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.sparse_rows import Places, SparseRows

SUM_MODE = 0
"""How `embedding_bag` calls mode="sum" inside."""


def dense_pre_acts(
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
) -> Float[Tensor, "batch d_sae"]:
    """(x - b_dec) @ W_enc + b_enc, with the small product b_dec @ W_enc moved into the bias."""
    return torch.addmm(b_enc - b_dec @ W_enc, x, W_enc)


def with_encoder_gradient(
    selected: SparseRows,
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
) -> SparseRows:
    """The same pre-activations (x - b_dec) @ W_enc + b_enc at a few places, now with gradients to all four."""
    values: Tensor = SelectedPreActs.apply(selected.values, x, W_enc, b_enc, b_dec, selected)  # type: ignore[no-untyped-call]
    return selected.with_values(values)


def sparse_decode(latents: SparseRows, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "*batch d_in"]:
    """`latents.to_dense() @ W_dec`, forward and backward in time proportional to the nonzeros."""
    decoded: Tensor = SparseDecode.apply(latents.values, W_dec, latents)  # type: ignore[no-untyped-call]
    return decoded.reshape(*latents.shape[:-1], W_dec.shape[1])


class SelectedPreActs(torch.autograd.Function):
    """Pre-activations known already; the backward never sees the ones that were not selected."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, selected: SparseRows
    ) -> Tensor:
        del b_enc
        ctx.save_for_backward(x, W_enc, b_dec)
        ctx.places = selected.places
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, W_enc, b_dec = ctx.saved_tensors
        places: Places = ctx.places
        grad_b_enc = W_enc.new_zeros(W_enc.shape[1]).index_add_(0, places.indices, grad)
        grad_W_enc = places.column_sums(grad, x - b_dec).T
        grad_b_dec = -(W_enc @ grad_b_enc)
        grad_x = places.row_sums(grad, W_enc.T.contiguous()) if ctx.needs_input_grad[1] else None
        return None, grad_x, grad_W_enc, grad_b_enc, grad_b_dec, None


class SparseDecode(torch.autograd.Function):
    """latents @ W_dec from the nonzeros alone, with gradients to the values and W_dec."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, latents: SparseRows) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.places = latents.places
        return latents.places.row_sums(values, W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        grad = grad.contiguous()
        values, W_dec = ctx.saved_tensors
        places: Places = ctx.places
        grad_W_dec = places.column_sums(values, grad) if ctx.needs_input_grad[1] else None
        return gathered_dots(grad, W_dec, places.rows, places.indices, order=places.column_order), grad_W_dec, None


def gathered_dots(
    left: Float[Tensor, "n_left d"],
    right: Float[Tensor, "n_right d"],
    left_rows: Int[Tensor, " nnz"],
    right_rows: Int[Tensor, " nnz"],
    *,
    order: Int[Tensor, " nnz"],
) -> Float[Tensor, " nnz"]:
    """left[left_rows] . right[right_rows], pair by pair, without the gathered rows.

    This is the gradient of `embedding_bag` to its per-sample weights, so the operator that computes it is called. The
    pairs are visited in the given order, which changes nothing but the time: sorted by the longer table it takes a half
    (6,144 rows) or a third (24,576 rows), because then each of that table's rows is read once.
    """
    no_offsets = left_rows.new_zeros(0)
    dots: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left.contiguous(), right, right_rows[order], no_offsets, left_rows[order], SUM_MODE
    )
    return torch.empty_like(dots).scatter_(0, order, dots)


def row_dots(left: Float[Tensor, "n d"], right: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """left[i] . right[i] without a product of their size in between (`vecdot` makes one: 8 times slower at 75 MB)."""
    rows = torch.arange(left.shape[0], device=left.device)
    dots: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left, right, rows, rows.new_zeros(0), rows, SUM_MODE
    )
    return dots
