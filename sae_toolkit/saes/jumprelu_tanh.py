"""JumpReLU SAE with a tanh penalty (Conerly et al. 2025, Anthropic's January update on "Dictionary Learning
Optimization Techniques"): mean squared error + tanh * mean_b sum_i tanh(c z_i ||W_dec_i||).

Unlike the L0 penalty of Rajamanoharan et al. 2024 it has a slope in z, so that it also trains the encoder; with a wide
window (eps = 2) many samples move each threshold. Their loss on pre-activations is a way of reviving dead latents and
belongs to training: `RevivalConfig(dead_pre_act_coefficient=...)`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.jumps import JumpingConfig, initial_thresholds, jumping_latents
from sae_toolkit.saes.penalties import sizes, tanh_penalty
from sae_toolkit.sparse_rows import SparseRows


class TanhJumpReluSAE(AbstractSAE):
    """z = JumpReLU_theta((x - b_dec) W_enc + b_enc), penalised by tanh(c z_i ||W_dec_i||)."""

    has_sparsity_penalty: ClassVar[bool] = True
    unit_norm_decoder: ClassVar[bool] = False
    initial_decoder_norm: ClassVar[float] = 0.1
    latent_axes: ClassVar[dict[str, int]] = {**AbstractSAE.latent_axes, "threshold": 0}

    @dataclass(frozen=True, kw_only=True)
    class Config(JumpingConfig):
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

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.threshold = initial_thresholds(config)

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return jumping_latents(self, x, self.threshold, self.config.bandwidth)[0]

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return self.threshold.detach().clamp_min(0)

    @torch.no_grad()
    def restart_(self, latents: Tensor, directions: Tensor, *, reads: Tensor) -> None:
        super().restart_(latents, directions, reads=reads)
        self.threshold[latents] = self.config.initial_threshold

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        penalty = tanh_penalty(sizes(output.latent_acts, self.W_dec), self.config.steepness)
        weight = self.config.tanh_coefficient * signals.sparsity_weight / self.d_in
        return {"mse": self.normalised_error(x, output).square().mean(), "tanh": weight * penalty}
