"""What JumpReLU variants share: a threshold for each latent, which learns from the samples near it.

Rajamanoharan et al. 2024 ("Jumping Ahead", arXiv 2407.14435): z = p H(p - theta) (equation 6), and penalties count
H(p - theta). Both jump, so theta learns from pseudo-derivatives with a rectangular window of width eps (equations 11
and 12). Only pre-activations inside the window or above it matter to anything, so where these are few, they alone are
kept in training mode (`few_above_or_all`), and at inference those above theta.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_toolkit.saes.active_latents import few_above_or_all, in_blocks, latents_above
from sae_toolkit.saes.base import AbstractSAE, Latents
from sae_toolkit.saes.cuts import kept_above, kept_inside, ones_inside
from sae_toolkit.sparse_rows import SparseRows


@dataclass(frozen=True, kw_only=True)
class JumpingConfig(AbstractSAE.Config):
    """Choices of an SAE with a learned threshold for each latent."""

    bandwidth: float = 0.5
    """Width of the window around a threshold in which samples move it, in normalised units (coordinates of x
    have mean square 1, so that ||x|| is near sqrt(d_in)). Wide windows are biased, narrow ones noisy."""
    initial_threshold: float = 0.1
    """Where thresholds start, in the same units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bandwidth", "initial_threshold"):
            if not getattr(self, name) > 0:
                raise ValueError(f"JumpReLU: {name}={getattr(self, name)} given, but it must be positive.")


def initial_thresholds(config: JumpingConfig) -> nn.Parameter:
    """One for each latent."""
    return nn.Parameter(torch.full((config.d_sae,), config.initial_threshold))


def jumping_latents(
    sae: AbstractSAE, x: Float[Tensor, "batch d_in"], threshold: Float[Tensor, " d_sae"], bandwidth: float
) -> tuple[Latents, Latents]:
    """Latents of normalised samples, and the pre-activations that they and the thresholds learn from.

    Thresholds get a gradient in training mode alone, where everything above theta - eps / 2 is kept.
    """
    bar = threshold.detach().clamp_min(0)
    if not sae.training:
        above = latents_above(x, sae.W_enc, sae.b_enc, sae.b_dec, bound=bar)
        return above, above
    pre_acts = few_above_or_all(x, sae.W_enc, sae.b_enc, sae.b_dec, bound=bar - bandwidth / 2)
    return jump_relu(pre_acts, threshold, bandwidth), pre_acts


def jump_relu(pre_acts: Latents, threshold: Float[Tensor, " d_sae"], bandwidth: float) -> Latents:
    """ReLU(p) H(p - theta), with d/d theta = -theta / eps inside the window (equation 11); theta < 0 acts as 0."""
    if isinstance(pre_acts, SparseRows):
        own = threshold[pre_acts.indices]
        return pre_acts.with_values(JumpRelu.apply(pre_acts.values, own, bandwidth))  # type: ignore[no-untyped-call]
    jumped: Tensor = JumpRelu.apply(pre_acts, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return jumped


def step_l0(pre_acts: Latents, threshold: Float[Tensor, " d_sae"], bandwidth: float) -> Float[Tensor, ""]:
    """Mean number of latents per sample with p > theta, with d/d theta = -1 / eps in the window (equation 12)."""
    above, inside = counted(pre_acts, threshold.detach().clamp_min(0), bandwidth)
    l0: Tensor = MeanL0.apply(threshold, above, inside, bandwidth)  # type: ignore[no-untyped-call]
    return l0


@torch.no_grad()
def counted(
    pre_acts: Latents, bar: Float[Tensor, " d_sae"], bandwidth: float
) -> tuple[Float[Tensor, ""], Float[Tensor, " d_sae"]]:
    """Means over samples: how many pre-activations are above their bar, and in each latent's window."""
    inside = torch.zeros_like(bar)
    if isinstance(pre_acts, SparseRows):
        own = bar[pre_acts.indices]
        near = (pre_acts.values - own).abs() < bandwidth / 2
        inside.index_add_(0, pre_acts.indices, near.to(bar.dtype))
        return (pre_acts.values > own).to(bar.dtype).sum() / pre_acts.n_rows, inside / pre_acts.n_rows
    above, n_rows = bar.new_zeros(()), pre_acts[..., 0].numel()  # float64 is not everywhere
    for block in in_blocks(pre_acts):
        margins = block - bar
        inside += ones_inside(margins, within=bandwidth / 2).sum(0)
        above += torch.gt(margins, 0, out=margins).sum()
    return above / n_rows, inside / n_rows


class JumpRelu(torch.autograd.Function):
    """The JumpReLU with its pseudo-derivative, a few rows at a time; a threshold for each column.

    Rows that are in the processor's cache are read as often as the formulas ask.
    """

    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_acts, threshold)
        ctx.bandwidth = bandwidth
        bar = threshold.clamp_min(0)
        jumped = torch.empty_like(pre_acts, memory_format=torch.contiguous_format)
        for p, out in zip(in_blocks(pre_acts), in_blocks(jumped), strict=True):
            out.copy_(kept_above(p, p - bar))
        return jumped

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pre_acts, threshold = ctx.saved_tensors
        bar = threshold.clamp_min(0)
        to_pre_acts = torch.empty_like(pre_acts, memory_format=torch.contiguous_format)
        in_window = torch.zeros_like(bar)
        for p, grad, out in zip(in_blocks(pre_acts), in_blocks(grads[0]), in_blocks(to_pre_acts), strict=True):
            margins = p - bar
            out.copy_(kept_above(grad, margins))
            in_window += kept_inside(grad, margins, within=ctx.bandwidth / 2).sum(0)
        return to_pre_acts, in_window * bar / -ctx.bandwidth, None


class MeanL0(torch.autograd.Function):
    """A mean number of active latents that has been counted, with the pseudo-derivative of what was counted."""

    @staticmethod
    def forward(ctx: Any, threshold: Tensor, above: Tensor, inside: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(inside)
        ctx.bandwidth = bandwidth
        return above.to(threshold.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        (inside,) = ctx.saved_tensors
        return grad * inside / -ctx.bandwidth, None, None, None
