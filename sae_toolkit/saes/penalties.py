"""Sparsity penalties as pure functions of latents `[*batch d_sae]`, dense or sparse: a mean over samples, in normalised
units. What is 0 costs nothing.

A latent counts by what it adds to the reconstruction, its activation times the length of its decoder row (Conerly et
al. 2024), so that a compensated rescaling of a latent changes nothing. The L1 penalty is `mean_total` of such sizes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.active_latents import each_value, mean_total
from sae_toolkit.sparse_rows import SparseRows

LP_OFFSET = 0.01
"""Added to sizes before a power below 1, whose slope at 0 would be infinite (normalised units)."""


def sizes(
    latents: Float[Tensor, "*batch d_sae"] | SparseRows, W_dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "*batch d_sae"] | SparseRows:
    """z_i ||W_dec_i||: the length of each latent's contribution, for z >= 0 (an absolute value has no slope at 0)."""
    return each_value(latents, torch.mul, W_dec.norm(dim=1))


def lp_penalty(sizes: Float[Tensor, "*batch d_sae"] | SparseRows, p: float) -> Float[Tensor, ""]:
    """mean_b sum_i s_i^p, smoothed at 0: (s + 0.01)^p - 0.01^p. At p = 1 it is the L1 penalty."""
    return mean_total(each_value(sizes, lambda size: (size + LP_OFFSET).pow(p) - LP_OFFSET**p))


def tanh_penalty(sizes: Float[Tensor, "*batch d_sae"] | SparseRows, steepness: float) -> Float[Tensor, ""]:
    """mean_b sum_i tanh(steepness * s_i): near L0 for large sizes, near L1 for small ones."""
    return mean_total(each_value(sizes, lambda size: torch.tanh(steepness * size)))


def target_l0_penalty(l0: Float[Tensor, ""], target: float) -> Float[Tensor, ""]:
    """(L0 / target - 1)^2 of the mean L0 of the batch."""
    return (l0 / target - 1).square()
