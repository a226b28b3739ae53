"""What counts as dead and what brings it back, for any variant: AuxK, a push on pre-activations, restarts.

The two losses are here; restarting latents on badly reconstructed samples is in `dead_latents.py`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import auxk_loss
from sae_toolkit.saes.base import AbstractSAE, SAEOutput

K_AUX = 512
"""Dead latents that model the residual of one sample, at most (Gao et al. 2024, appendix A.2)."""


@dataclass(frozen=True, kw_only=True)
class RevivalConfig:
    """The three ways to revive latents, each on or off by itself."""

    dead_after_samples: int | None = None
    """A latent that has not fired for this many samples counts as dead. None: 1/400 of the run's samples,
    because a latent must be found dead while the learning rate is still high enough to move it somewhere useful."""
    auxk_coefficient: float = 1 / 32
    """Weight of the AuxK loss, which lets dead latents model what the live ones leave over. 0: off."""
    dead_pre_act_coefficient: float = 0.0
    """Weight of the loss that pushes dead latents towards firing, whatever they would stand for. 0: off."""
    resample_every_samples: int | None = None
    """Every so many samples dead latents restart on badly reconstructed samples. None: never."""

    def __post_init__(self) -> None:
        for name in ("dead_after_samples", "resample_every_samples"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"RevivalConfig: {name}={getattr(self, name)} given; use a positive value or None.")
        for name in ("auxk_coefficient", "dead_pre_act_coefficient"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"RevivalConfig: {name}={getattr(self, name)} given, but it must not be negative.")


def revival_terms(
    sae: AbstractSAE,
    x: Float[Tensor, "batch d_in"],
    output: SAEOutput,
    dead: Bool[Tensor, " d_sae"],
    config: RevivalConfig,
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
