"""JumpReLU SAE that is asked for an L0 (Rajamanoharan et al. 2024, arXiv 2407.14435): the quadratic penalty.

Loss = mean squared error + c (L0 / L0_target - 1)^2, with L0 the mean number of active latents of the batch and the
pseudo-derivative of the step function (equation 12). Too few active latents are penalised like too many.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.jumps import JumpingConfig, initial_thresholds, jumping_latents, step_l0
from sae_toolkit.saes.kept_pre_acts import forward_keeping, kept_pre_acts
from sae_toolkit.saes.penalties import target_l0_penalty
from sae_toolkit.sparse_rows import SparseRows


class TargetL0JumpReluSAE(AbstractSAE):
    """z = JumpReLU_theta((x - b_dec) W_enc + b_enc) with a loss that names the L0 it wants."""

    has_sparsity_penalty: ClassVar[bool] = False  # its target is its own; a second one would pull against it
    latent_axes: ClassVar[dict[str, int]] = {**AbstractSAE.latent_axes, "threshold": 0}

    @dataclass(frozen=True, kw_only=True)
    class Config(JumpingConfig):
        """Choices of a JumpReLU SAE with its own target L0."""

        wanted_l0: float
        """Mean number of active latents per sample."""
        l0_coefficient: float = 10.0
        """Weight of the squared relative deviation from it (the mean squared error starts near 1). The L0 ends where
        the penalty balances the reconstruction error: 1 lands 5 to 11 % above the wanted one, 10 about 1 %."""

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

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.threshold = initial_thresholds(config)

    @property
    def own_target_l0(self) -> float:
        return self.config.wanted_l0

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return jumping_latents(self, x, self.threshold, self.config.bandwidth)[0]

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        return forward_keeping(self, x, lambda rows: jumping_latents(self, rows, self.threshold, self.config.bandwidth))

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return self.threshold.detach().clamp_min(0)

    @torch.no_grad()
    def restart_(self, latents: Tensor, directions: Tensor, *, reads: Tensor) -> None:
        super().restart_(latents, directions, reads=reads)
        self.threshold[latents] = self.config.initial_threshold

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        l0 = step_l0(kept_pre_acts(self, output), self.threshold, self.config.bandwidth)
        penalty = target_l0_penalty(l0, self.config.wanted_l0)
        weight = self.config.l0_coefficient * signals.sparsity_weight
        return {"mse": self.normalised_error(x, output).square().mean(), "l0_penalty": weight * penalty}
