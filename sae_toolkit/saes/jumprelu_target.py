"""JumpReLU SAE that is asked for an L0 (Rajamanoharan et al. 2024, arXiv 2407.14435): the quadratic penalty.

Loss = mean squared error + c (L0 / L0_target - 1)^2, with L0 the mean number of active latents of the batch and the
pseudo-derivative of the step function (equation 12). Too few active latents are penalised like too many.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import SAEOutput, TrainingSignals
from sae_toolkit.saes.jumprelu import ThresholdedSAE, step_l0
from sae_toolkit.saes.penalties import target_l0_penalty


class TargetL0JumpReluSAE(ThresholdedSAE):
    """z = JumpReLU_theta((x - b_dec) W_enc + b_enc) with a loss that names the L0 it wants."""

    has_sparsity_penalty: ClassVar[bool] = False  # its target is its own; a second one would pull against it

    @dataclass(frozen=True, kw_only=True)
    class Config(ThresholdedSAE.Config):
        """Choices of a JumpReLU SAE with its own target L0."""

        wanted_l0: float
        """Mean number of active latents per sample."""
        l0_coefficient: float = 1.0
        """Weight of the squared relative deviation from it (the mean squared error starts near 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.wanted_l0 <= self.d_sae:
                raise ValueError(
                    f"TargetL0JumpReluSAE: wanted_l0={self.wanted_l0} asked, but d_sae={self.d_sae}. "
                    f"Choose 0 < wanted_l0 <= d_sae."
                )
            if not self.l0_coefficient >= 0:
                raise ValueError(
                    f"TargetL0JumpReluSAE: l0_coefficient={self.l0_coefficient} given; it must not be negative."
                )

    config: Config

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        l0 = step_l0(self.trained_pre_acts(output), self.threshold, self.config.bandwidth)
        penalty = target_l0_penalty(l0, self.config.wanted_l0)
        weight = self.config.l0_coefficient * signals.sparsity_weight
        return {"mse": self.normalised_error(x, output).square().mean(), "l0_penalty": weight * penalty}
