"""JumpReLU SAE (Rajamanoharan et al. 2024, "Jumping Ahead", arXiv 2407.14435): a learned threshold for each latent.

z = pre * H(pre - theta) (equation 6); the loss counts the active latents, sum_i H(pre_i - theta_i) (equation 9). How
theta learns is in `jumps.py`. Here theta is a parameter itself, not its logarithm: under Adam a log threshold that
starts near 0 hardly moves.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.jumps import JumpingConfig, initial_thresholds, jumping_latents, step_l0
from sae_toolkit.saes.kept_pre_acts import forward_keeping, kept_pre_acts
from sae_toolkit.sparse_rows import SparseRows


class JumpReluSAE(AbstractSAE):
    """z = p where p = (x - b_dec) W_enc + b_enc exceeds theta and 0.

    Loss = mean squared error + l0 * mean_b sum_i H(p_i - theta_i) / d_in: the L0 penalty itself.
    """

    has_sparsity_penalty: ClassVar[bool] = True
    latent_axes: ClassVar[dict[str, int]] = {**AbstractSAE.latent_axes, "threshold": 0}

    @dataclass(frozen=True, kw_only=True)
    class Config(JumpingConfig):
        """Choices of a JumpReLU SAE with an L0 penalty."""

        l0_coefficient: float = 1.0
        """Penalty per d_in active latents, so that it does not pay to use a latent for a contribution to x that is
        shorter than sqrt(l0_coefficient) in normalised units."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.l0_coefficient >= 0:
                raise ValueError(f"JumpReluSAE: l0_coefficient={self.l0_coefficient} given; it must not be negative.")

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.threshold = initial_thresholds(config)

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
        weight = self.config.l0_coefficient * signals.sparsity_weight / self.d_in
        return {"mse": self.normalised_error(x, output).square().mean(), "l0_penalty": weight * l0}
