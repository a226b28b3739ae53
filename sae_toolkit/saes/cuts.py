"""Elementwise cuts: what lies above a level, or inside a window, and 0 for the rest.

`torch.where` and products with a mask are not vectorised on CPUs: on a block of 1 MB they take 500 us. The kernels that
compute the gradients of a threshold and of a hard tanh do exactly this, on any device, and take 22 us.
"""

import torch
from jaxtyping import Float
from torch import Tensor

aten = torch.ops.aten


def kept_above(values: Float[Tensor, "*places"], margins: Float[Tensor, "*places"]) -> Float[Tensor, "*places"]:
    """The values where their margin is positive, 0 elsewhere; margins get no gradient."""
    kept: Tensor = aten.threshold_backward(values, margins.detach(), 0.0)
    return kept


def kept_inside(
    values: Float[Tensor, "*places"], margins: Float[Tensor, "*places"], *, within: float
) -> Float[Tensor, "*places"]:
    """The values where |margin| < within, 0 elsewhere; margins get no gradient."""
    kept: Tensor = aten.hardtanh_backward(values, margins.detach(), -within, within)
    return kept


def ones_inside(margins: Float[Tensor, "*places"], *, within: float) -> Float[Tensor, "*places"]:
    """1 where |margin| < within, 0 elsewhere."""
    return kept_inside(margins.new_ones(()).expand_as(margins), margins, within=within)
