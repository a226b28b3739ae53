"""Losses that bring dead latents back, for any variant: AuxK, and a push on their pre-activations.

The third way, restarting them on badly reconstructed samples, is in `dead_latents.py`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import auxk_loss
from sae_toolkit.saes.base import AbstractSAE, SAEOutput
from sae_toolkit.training.learning import LearningConfig

K_AUX = 512
"""Dead latents that model the residual of one sample, at most (Gao et al. 2024, appendix A.2)."""


def revival_terms(
    sae: AbstractSAE,
    x: Float[Tensor, "batch d_in"],
    output: SAEOutput,
    dead: Bool[Tensor, " d_sae"],
    config: LearningConfig,
    *,
    target: Float[Tensor, "batch d_out"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted loss terms that are switched on; only weights of dead latents get a gradient from them.

    The output is that on x, and was to be the target; x itself where none is given.
    """
    terms = {}
    if config.auxk_coefficient > 0:
        auxk = auxk_loss(sae, x, sae.normalised_error(x if target is None else target, output), dead, K_AUX)
        terms["auxk"] = config.auxk_coefficient * auxk
    if config.dead_pre_act_coefficient > 0:
        terms["dead_pre_acts"] = config.dead_pre_act_coefficient * dead_pre_act_loss(sae, x, output, dead)
    return terms


def dead_pre_act_loss(
    sae: AbstractSAE, x: Float[Tensor, "batch d_in"], output: SAEOutput, dead: Bool[Tensor, " d_sae"]
) -> Float[Tensor, ""]:
    """Mean over samples of sum_i relu(theta_i - pre_i) ||W_dec_i|| / d_in over the dead latents i.

    Conerly et al. 2025 (Anthropic's January update, "Dictionary learning optimization techniques"), there over all
    latents. theta_i is what a latent must exceed to fire. The gradient reaches the weights of dead latents alone.
    """
    dead_ids = dead.nonzero().squeeze(1)
    if dead_ids.numel() == 0:
        return x.new_zeros(())
    centred = (sae.normaliser.normalise(x) - sae.centre).detach()
    pre_acts = centred @ sae.W_enc[:, dead_ids] + sae.b_enc[dead_ids]
    missing = (sae.firing_thresholds(output)[dead_ids] - pre_acts).relu()
    return torch.einsum("bl,l->b", missing, sae.W_dec[dead_ids].norm(dim=1)).mean() / sae.d_in
