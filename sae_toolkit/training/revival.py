"""What counts as dead and what brings it back, for any variant: AuxK, a push on pre-activations, restarts.

The two losses are here; restarting latents on badly reconstructed samples is in `dead_latents.py`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import auxk_loss
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.latent_rows import LatentRows

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
    dead: LatentRows,
    x: Float[Tensor, "batch d_in"],
    target: Float[Tensor, "batch d_out"],
    output: SAEOutput,
    config: RevivalConfig,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted loss terms that are switched on; only the copied weights of dead latents get a gradient from them.

    The output is that on x, and was to be the target (x itself, but for a transcoder).
    """
    sae, terms = dead.sae, {}
    with torch.no_grad():
        centred = sae.normaliser.normalise(x) - sae.centre
        error = sae.normalised_error(target, output)
    if config.auxk_coefficient > 0:
        terms["auxk"] = config.auxk_coefficient * auxk_loss(dead, centred, error, K_AUX)
    if config.dead_pre_act_coefficient > 0:
        bars = sae.firing_thresholds(output).detach()[dead.ids]
        terms["dead_pre_acts"] = config.dead_pre_act_coefficient * dead_pre_act_loss(dead, centred, bars)
    return terms


def dead_pre_act_loss(
    dead: LatentRows, centred: Float[Tensor, "batch d_in"], bars: Float[Tensor, " n_dead"]
) -> Float[Tensor, ""]:
    """Mean over samples of sum_i relu(theta_i - pre_i) ||W_dec_i|| / d_in over the dead latents i.

    Conerly et al. 2025 (Anthropic's January update, "Dictionary learning optimization techniques"), there over all
    latents. theta_i, a bar, is what a latent must exceed to fire.
    """
    if len(dead) == 0:
        return centred.new_zeros(())
    missing = (bars - dead.pre_acts(centred)).relu()
    return torch.einsum("bl,l->b", missing, dead.W_dec.norm(dim=1)).mean() / dead.sae.d_in
