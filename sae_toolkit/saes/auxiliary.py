"""AuxK: dead latents learn to model what the live ones leave over.

Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093), section 2.4 and appendix A.2: the loss
||e - e_hat||^2 with e = x - x_hat and e_hat the reconstruction from the k_aux largest dead latents.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals


@dataclass(frozen=True, kw_only=True)
class SelectingConfig(AbstractSAE.Config):
    """Choices of an SAE that selects latents by rank and revives dead ones by AuxK."""

    k: int
    """Latents selected per sample (on average, where the selection is batch-wide)."""
    aux_coefficient: float = 1 / 32
    """Weight of the AuxK loss relative to the reconstruction loss; 0 switches it off."""
    k_aux: int = 512
    """Dead latents that model the residual of one sample, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.d_sae:
            raise ValueError(f"k={self.k} asked, but d_sae={self.d_sae}. Choose 1 <= k <= d_sae, or a wider SAE.")
        if not self.aux_coefficient >= 0:
            raise ValueError(f"aux_coefficient={self.aux_coefficient} given, but it must not be negative.")
        if self.k_aux < 1:
            raise ValueError(f"k_aux={self.k_aux} given, but it must be at least 1; aux_coefficient=0 turns AuxK off.")


def mse_and_auxk(
    sae: AbstractSAE,
    config: SelectingConfig,
    x: Float[Tensor, "batch d_in"],
    output: SAEOutput,
    signals: TrainingSignals,
) -> dict[str, Float[Tensor, ""]]:
    """The loss terms of such an SAE: mean squared error in normalised units, and weighted AuxK."""
    error = sae.normalised_error(x, output)
    if config.aux_coefficient == 0:
        return {"mse": error.square().mean(), "auxk": error.new_zeros(())}
    auxk = auxk_loss(sae, x, error, signals.dead, config.k_aux)
    return {"mse": error.square().mean(), "auxk": config.aux_coefficient * auxk}


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
    pre_acts = torch.addmm(sae.b_enc[dead_ids], centred, sae.W_enc.T.index_select(0, dead_ids).T)
    modelled = largest_positive(pre_acts, k_aux) @ sae.W_dec.index_select(0, dead_ids)
    return (target - modelled).square().sum() / target.square().sum().clamp_min(torch.finfo(target.dtype).tiny)


def largest_positive(pre_acts: Float[Tensor, "batch n_dead"], k: int) -> Float[Tensor, "batch n_dead"]:
    """ReLU of the k largest of each row, 0 elsewhere; ranked only where some row has more than k that are positive."""
    if k >= pre_acts.shape[1] or int((pre_acts > 0).sum(1).max()) <= k:
        return pre_acts.relu()
    dropped = pre_acts.detach().topk(pre_acts.shape[1] - k, dim=1, largest=False, sorted=False).indices
    return pre_acts.relu().scatter(1, dropped, 0.0)
