"""Sparsity penalties as pure functions of latents `[*batch d_sae]`: a mean over samples, in normalised units.

A latent counts by what it adds to the reconstruction, its activation times the length of its decoder row (Conerly et
al. 2024), so that a compensated rescaling of a latent changes nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LP_OFFSET = 0.01
"""Added to sizes before a power below 1, whose slope at 0 would be infinite (normalised units)."""


def sizes(latents: Float[Tensor, "*batch d_sae"], W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "*batch d_sae"]:
    """z_i ||W_dec_i||: the length of each latent's contribution, for z >= 0 (an absolute value has no slope at 0)."""
    lengths: Tensor = W_dec.norm(dim=1)
    return latents * lengths


def l1_penalty(sizes: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, ""]:
    """mean_b sum_i s_i."""
    return sizes.sum(-1).mean()


def lp_penalty(sizes: Float[Tensor, "*batch d_sae"], p: float) -> Float[Tensor, ""]:
    """mean_b sum_i s_i^p, smoothed at 0: (s + 0.01)^p - 0.01^p. At p = 1 it is the L1 penalty."""
    powers: Tensor = (sizes + LP_OFFSET).pow(p) - LP_OFFSET**p
    return powers.sum(-1).mean()


def tanh_penalty(sizes: Float[Tensor, "*batch d_sae"], steepness: float) -> Float[Tensor, ""]:
    """mean_b sum_i tanh(steepness * s_i): near L0 for large sizes, near L1 for small ones."""
    return torch.tanh(steepness * sizes).sum(-1).mean()


def target_l0_penalty(l0: Float[Tensor, ""], target: float) -> Float[Tensor, ""]:
    """(L0 / target - 1)^2 of the mean L0 of the batch."""
    return (l0 / target - 1).square()
