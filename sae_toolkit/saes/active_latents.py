"""Latents that are 0 up to a bound on their pre-activation: stored sparse once few are active, dense while many are.

A dense step needs five products of the size of the dictionary. Where few latents are active, only the encoder's own is
needed: `latents_above` gives `SparseRows` then, which cost as much as TopK latents to decode and differentiate. While
many are active (at the start of training) dense products are faster, and it gives a dense tensor; the numbers are the
same. The other functions take either form, so a variant is written once. For a ReLU or a gate the bound is 0; for a
JumpReLU it is the threshold less half the window in which the threshold learns (`jumps.py`).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.cuts import kept_above
from sae_toolkit.saes.selection import Encoder, few_above
from sae_toolkit.saes.sparse_ops import dense_pre_acts, sparse_decode, with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows

SPARSE_SHARE = 1 / 16
"""Share of active latents up to which they are stored sparse. On CPUs both forms take about the same time at 1/10."""
LATENTS_AT_ONCE = 2**18
"""Dense latents that are looked at together (float32: 1 MiB): few enough to stay in the processor's cache."""


def latents_above(
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
    *,
    bound: float | Float[Tensor, " d_sae"] = 0.0,
) -> Float[Tensor, "batch d_sae"] | SparseRows:
    """p = (x - b_dec) @ W_enc + b_enc where p > bound, 0 elsewhere; the bound itself gets no gradient."""
    level = bound.detach() if isinstance(bound, Tensor) else bound
    pre_acts = few_above_or_all(x, W_enc, b_enc, b_dec, bound=level)
    if isinstance(pre_acts, SparseRows):
        return pre_acts
    if isinstance(level, float):
        return pre_acts.relu_() if level == 0 else each_value(pre_acts, lambda p: kept_above(p, p - level))
    return each_value(pre_acts, lambda p, own: kept_above(p, p - own), level)


def few_above_or_all(
    x: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
    *,
    bound: float | Float[Tensor, " d_sae"],
) -> Float[Tensor, "batch d_sae"] | SparseRows:
    """p = (x - b_dec) @ W_enc + b_enc: those above the bound, sparse, where they are few; else every one, dense."""
    encoder = Encoder(W_enc.detach(), b_enc.detach(), b_dec.detach())
    few = few_above(x.detach(), encoder, threshold=bound, at_most=SPARSE_SHARE)
    if few is not None:
        return with_encoder_gradient(few, x, W_enc, b_enc, b_dec)
    return dense_pre_acts(x, W_enc, b_enc, b_dec)


def each_latent(
    latents: Float[Tensor, "*batch d_sae"] | SparseRows,
    function: Callable[..., Tensor],
    *parameters: Float[Tensor, " d_sae"],
) -> Float[Tensor, "*batch d_sae"] | SparseRows:
    """function(activation, parameter of its latent, ...) wherever a latent is not 0; what is 0 stays 0."""
    if isinstance(latents, SparseRows):
        return each_value(latents, function, *parameters)
    return each_value(latents, lambda z, *own: kept_above(function(z, *own), z.abs()), *parameters)


def each_value(
    latents: Float[Tensor, "*batch d_sae"] | SparseRows,
    function: Callable[..., Tensor],
    *parameters: Float[Tensor, " d_sae"],
) -> Float[Tensor, "*batch d_sae"] | SparseRows:
    """The same for a function that leaves 0 at 0; its slope there counts (a latent may be just below its threshold)."""
    if isinstance(latents, SparseRows):
        own = [parameter[latents.indices] for parameter in parameters]
        return latents.with_values(function(latents.values, *own))
    mapped: Tensor = ByBlocks.apply(function, latents, *parameters)  # type: ignore[no-untyped-call]
    return mapped


class ByBlocks(torch.autograd.Function):
    """An elementwise function of dense latents and of parameters of each, a few rows at a time, forward and backward.

    Whatever the function computes on its way stays in the processor's cache and is computed again for the gradient:
    whole matrices of it would cost more time than the products do.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], latents: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(latents, *parameters)
        ctx.function = function
        mapped = torch.empty_like(latents, memory_format=torch.contiguous_format)
        for z, out in zip(in_blocks(latents), in_blocks(mapped), strict=True):
            out.copy_(function(z, *parameters))
        return mapped

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        latents, *parameters = ctx.saved_tensors
        to_latents = torch.empty_like(latents, memory_format=torch.contiguous_format)
        to_parameters = [torch.zeros_like(parameter) for parameter in parameters]
        for z, grad, out in zip(in_blocks(latents), in_blocks(grads[0]), in_blocks(to_latents), strict=True):
            with torch.enable_grad():
                own = [tensor.detach().requires_grad_() for tensor in (z, *parameters)]
                mapped = ctx.function(*own)
            found = torch.autograd.grad(mapped, own, grad, materialize_grads=True)
            out.copy_(found[0])
            for total, part in zip(to_parameters, found[1:], strict=True):
                total.add_(part)
        return None, to_latents, *to_parameters


def in_blocks(latents: Float[Tensor, "*batch d_sae"]) -> tuple[Float[Tensor, "_ d_sae"], ...]:
    """Views of a few rows each (of a copy, where the rows of a batch cannot be seen as one matrix)."""
    return torch.split(latents.reshape(-1, latents.shape[-1]), max(1, LATENTS_AT_ONCE // latents.shape[-1]))


@torch.no_grad()
def active_counts(latents: Float[Tensor, "*batch d_sae"] | SparseRows) -> Float[Tensor, " d_sae"]:
    """For how many samples each latent is not 0 (exact up to 2^24 of them); a stored value of 0 does not count."""
    if isinstance(latents, SparseRows):
        # A sum, not boolean indexing: that would have a data-dependent size and wait for the GPU.
        counts = torch.zeros(latents.n_columns, device=latents.indices.device)
        return counts.index_add_(0, latents.indices, (latents.values != 0).float())
    counts = torch.zeros(latents.shape[-1], device=latents.device)
    for block in in_blocks(latents):
        counts += torch.ne(block, 0, out=torch.empty_like(block, dtype=counts.dtype)).sum(0)
    return counts


def mean_weighted_total(
    latents: Float[Tensor, "*batch d_sae"] | SparseRows, weights: Float[Tensor, " d_sae"]
) -> Float[Tensor, ""]:
    """mean_b sum_i z_i * weights_i, such as an L1 penalty weighted by decoder norms."""
    if isinstance(latents, SparseRows):
        return sparse_decode(latents, weights.unsqueeze(1)).mean()
    # By columns first: the gradient to the latents is then one row, repeated, and no matrix is written for it.
    rows = latents.reshape(-1, latents.shape[-1])
    return rows.sum(0) @ weights / rows.shape[0]


def mean_total(latents: Float[Tensor, "*batch d_sae"] | SparseRows) -> Float[Tensor, ""]:
    """mean_b sum_i z_i."""
    if isinstance(latents, SparseRows):
        return latents.values.sum() / latents.n_rows
    return latents.sum() / latents[..., 0].numel()


def decode_either(
    latents: Float[Tensor, "*batch d_sae"] | SparseRows, W_dec: Float[Tensor, "d_sae d"]
) -> Float[Tensor, "*batch d"]:
    """z @ W_dec."""
    return sparse_decode(latents, W_dec) if isinstance(latents, SparseRows) else latents @ W_dec
