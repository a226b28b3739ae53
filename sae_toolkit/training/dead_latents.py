"""Which latents have stopped firing, and how to restart them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.saes.active_latents import active_counts
from sae_toolkit.saes.base import AbstractSAE, SAEOutput

TOLERATED_SHARE = 0.05
"""Share of dead latents at the end of a run above which the run says so."""
SHORTEST_WINDOW = 1000
"""Samples of silence below which nothing is said: most features are rarer than that window is long."""


class DeadLatents:
    """Counts, per latent, the samples since it last fired; the counters stay on the device."""

    def __init__(self, d_sae: int, *, dead_after_samples: int, device: torch.device) -> None:
        self.dead_after_samples = dead_after_samples
        self.samples_since_fired = torch.zeros(d_sae, dtype=torch.int64, device=device)

    def update(self, fired: Bool[Tensor, " d_sae"], n_samples: int) -> None:
        """One batch went by, in which `fired` latents were active at least once."""
        self.samples_since_fired.add_(n_samples).masked_fill_(fired, 0)

    def mask(self) -> Bool[Tensor, " d_sae"]:
        """Latents that have been silent for at least `dead_after_samples` samples."""
        return self.samples_since_fired >= self.dead_after_samples

    def shortfall(self) -> str | None:
        """What to say when more than 5 % of the latents are dead; None where all is well."""
        window = max(self.dead_after_samples, SHORTEST_WINDOW)
        share = float((self.samples_since_fired >= window).double().mean())
        if share <= TOLERATED_SHARE:
            return None
        return (
            f"{share:.0%} of its latents are dead at the end (not active in the last {window:,} samples). "
            f"Raise the learning rate or train longer; if features are rarer than that, raise "
            f"revival.dead_after_samples; or revive with revival.resample_every_samples."
        )

    def restart(self, latents: Int[Tensor, " n_restarted"]) -> None:
        """Restarted latents get a full window before they count as dead again."""
        self.samples_since_fired[latents] = 0


def firing_counts(output: SAEOutput) -> Float[Tensor, " d_sae"]:
    """In how many samples of the batch each latent is active; a selected value of zero is no firing."""
    return active_counts(output.latent_acts)


@torch.no_grad()
def resample_(
    sae: AbstractSAE,
    optimizer: torch.optim.Optimizer,
    x: Float[Tensor, "batch d_in"],
    dead: Bool[Tensor, " d_sae"],
    generator: torch.Generator,
    *,
    target: Float[Tensor, "batch d_out"] | None = None,
) -> Int[Tensor, " n_restarted"]:
    """Restarts dead latents on samples drawn with probability proportional to their squared loss.

    Bricken et al. 2023 (appendix "Neuron resampling"): decoder row = the sample's direction, encoder column the same at
    a share of the mean live length, bias 0, Adam's moments of these rows 0. At most one latent per sample of the batch.
    A transcoder's decoder rows are directions of its `target`.
    """
    target = x if target is None else target
    error = sae.normalised_error(target, sae(x))
    weights = error.square().sum(1).square()
    n_restarted = min(int(dead.sum()), int((weights > 0).sum()))
    latents = dead.nonzero().squeeze(1)[:n_restarted]
    if n_restarted == 0:
        return latents
    chosen = torch.multinomial(weights.cpu(), n_restarted, generator=generator).to(x.device)
    directions = unit_rows(sae.target_normaliser.normalise(target[chosen]) - sae.b_dec)
    reads = unit_rows(sae.normaliser.normalise(x[chosen]) - sae.centre)
    live = ~dead
    length = sae.W_enc.norm(dim=0)[live].mean() if bool(live.any()) else sae.W_enc.new_ones(())
    sae.restart_(latents, directions, reads=sae.restarted_encoder_scale * length * reads)
    forget_moments_(sae, optimizer, latents)
    return latents


def unit_rows(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The same directions at length 1; a zero vector stays one."""
    units: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return units


def forget_moments_(sae: AbstractSAE, optimizer: torch.optim.Optimizer, latents: Int[Tensor, " n_restarted"]) -> None:
    """Sets Adam's running moments of the given latents to zero."""
    for name, axis in sae.latent_axes.items():
        state = optimizer.state.get(sae.get_parameter(name), {})
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                state[moment].index_fill_(axis, latents, 0.0)
