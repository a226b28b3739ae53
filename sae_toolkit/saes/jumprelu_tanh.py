"""JumpReLU SAE with a tanh penalty (Conerly et al. 2025, Anthropic's January update on "Dictionary Learning
Optimization Techniques"): mean squared error + tanh * mean_b sum_i tanh(c z_i ||W_dec_i||).

Unlike the L0 penalty of Rajamanoharan et al. 2024 it has a slope in z, so that it also trains the encoder; with a wide
window (eps = 2) many samples move each threshold. Their loss on pre-activations is a way of reviving dead latents and
belongs to training: `LearningConfig(dead_pre_act_coefficient=...)`.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import SAEOutput, TrainingSignals
from sae_toolkit.saes.jumprelu import ThresholdedSAE
from sae_toolkit.saes.penalties import sizes, tanh_penalty


class TanhJumpReluSAE(ThresholdedSAE):
    """z = JumpReLU_theta((x - b_dec) W_enc + b_enc), penalised by tanh(c z_i ||W_dec_i||)."""

    unit_norm_decoder: ClassVar[bool] = False
    initial_decoder_norm: ClassVar[float] = 0.1

    @dataclass(frozen=True, kw_only=True)
    class Config(ThresholdedSAE.Config):
        """Choices of a JumpReLU SAE with a tanh penalty."""

        bandwidth: float = 2.0
        """Width of the window around a threshold in which samples move it, in normalised units."""
        tanh_coefficient: float = 1.0
        """Penalty per d_in latents that are clearly active."""
        steepness: float = 1.0
        """c: contributions longer than about 1 / c (normalised units) count as active. Anthropic's is 4, at which half
        the latents died on our toy worlds."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.tanh_coefficient >= 0 or not self.steepness > 0:
                raise ValueError(
                    f"TanhJumpReluSAE: tanh_coefficient={self.tanh_coefficient}, steepness={self.steepness} given; "
                    f"the first must not be negative, the second must be positive."
                )

    config: Config

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        penalty = tanh_penalty(sizes(output.dense_latents(), self.W_dec), self.config.steepness)
        weight = self.config.tanh_coefficient * signals.sparsity_weight / self.d_in
        return {"mse": self.normalised_error(x, output).square().mean(), "tanh": weight * penalty}
