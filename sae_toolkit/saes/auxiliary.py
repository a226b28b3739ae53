"""AuxK: dead latents learn to model what the live ones leave over.

Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093), section 2.4 and appendix A.2: the loss
||e - e_hat||^2 with e = x - x_hat and e_hat the reconstruction from the k_aux largest dead latents.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE


def refuse_impossible_auxk(variant: str, *, aux_coefficient: float, k_aux: int) -> None:
    """Config values with which the loss has no meaning."""
    if not aux_coefficient >= 0:
        raise ValueError(f"{variant}: aux_coefficient={aux_coefficient} given, but it must not be negative.")
    if k_aux < 1:
        raise ValueError(
            f"{variant}: k_aux={k_aux} given, but it must be at least 1 (aux_coefficient=0 switches AuxK off)."
        )


def auxk_loss(
    sae: AbstractSAE,
    x: Float[Tensor, "batch d_in"],
    error: Float[Tensor, "batch d_in"],
    dead: Bool[Tensor, " d_sae"],
    k_aux: int,
) -> Float[Tensor, ""]:
    """Mean ||e - e_hat||^2 / mean ||e||^2 over the batch (1 while the dead latents explain nothing); 0 if none is dead.

    `x` is raw, `error` normalised. The gradient reaches the weights of dead latents alone: the error is a constant
    target, b_dec is detached and live latents take no part.
    """
    dead_ids = dead.nonzero().squeeze(1)
    if dead_ids.numel() == 0:
        return error.new_zeros(())
    target = error.detach()
    centred = (sae.normaliser.normalise(x) - sae.b_dec).detach()
    pre_acts = centred @ sae.W_enc[:, dead_ids] + sae.b_enc[dead_ids]
    if k_aux < dead_ids.numel():
        chosen = pre_acts.topk(k_aux, dim=-1, sorted=False)
        pre_acts = torch.zeros_like(pre_acts).scatter(-1, chosen.indices, chosen.values)
    modelled = pre_acts.relu() @ sae.W_dec[dead_ids]
    return (target - modelled).square().sum() / target.square().sum().clamp_min(torch.finfo(target.dtype).tiny)
