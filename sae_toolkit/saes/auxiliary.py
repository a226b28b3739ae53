"""AuxK: dead latents learn to model what the live ones leave over.

Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093), section 2.4 and appendix A.2: the loss
||e - e_hat||^2 with e = x - x_hat and e_hat the reconstruction from the k_aux largest dead latents.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.latent_rows import LatentRows
from sae_toolkit.saes.rank_selection import SelectingConfig

FIRING_SHARE = 0.02
"""Share of samples on which AuxK lets a dead latent act that a bias keeps below 0 everywhere."""


def auxk_loss(
    dead: LatentRows,
    centred: Float[Tensor, "batch d_in"],
    error: Float[Tensor, "batch d_out"],
    k_aux: int,
) -> Float[Tensor, ""]:
    """Mean ||e - e_hat||^2 / mean ||e||^2 over the batch (1 while the dead latents explain nothing); 0 if none is dead.

    Both are normalised and constants; `centred` has the SAE's centre taken from it. Only the weights of dead latents
    learn from it.
    """
    if len(dead) == 0:
        return error.new_zeros(())
    target, pre_acts = error.detach(), dead.pre_acts(centred.detach())
    if not isinstance(dead.sae.config, SelectingConfig):  # those lose by rank: no bias silences them, as a penalty does
        pre_acts = pre_acts + bias_to_fire(pre_acts.detach())
    modelled = largest_positive(pre_acts, k_aux) @ dead.W_dec
    size = target.square().sum()
    missed = (target - modelled).square().sum() * (size > 0)  # nothing is left to model where the error is exactly 0
    return missed / size.clamp_min(torch.finfo(target.dtype).tiny)


def largest_positive(pre_acts: Float[Tensor, "batch n_dead"], k: int) -> Float[Tensor, "batch n_dead"]:
    """ReLU of the k largest of each row, 0 elsewhere; ranked only where some row has more than k that are positive."""
    if k >= pre_acts.shape[1] or int((pre_acts > 0).sum(1).max()) <= k:
        return pre_acts.relu()
    dropped = pre_acts.detach().topk(pre_acts.shape[1] - k, dim=1, largest=False, sorted=False).indices
    return pre_acts.relu().scatter(1, dropped, 0.0)


def bias_to_fire(pre_acts: Float[Tensor, "batch n_dead"]) -> Float[Tensor, " n_dead"]:
    """What the bias of each latent lacks to be positive on one sample in fifty; 0 where it is already."""
    n_positive = max(1, round(FIRING_SHARE * pre_acts.shape[0]))
    last_below = pre_acts.kthvalue(max(1, pre_acts.shape[0] - n_positive), dim=0).values
    return (-last_below).clamp_min(0)
