"""Gated SAE (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders", 2404.16014).

Whether a latent fires and how strongly are two questions, asked by one weight matrix with two biases and a gain:
pi = (x - b_dec) W_enc + b_enc decides (equation 6), exp(r_mag) * (pi - b_enc) + b_mag weighs (equation 7). The step has
no gradient, so the gate learns from an auxiliary path: ReLU(pi) pays the L1 penalty and reconstructs x through a frozen
copy of the decoder (equation 8). `b_enc` is the paper's b_gate.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_toolkit.saes.active_latents import decode_either, each_latent, latents_above, mean_total
from sae_toolkit.saes.base import AbstractSAE, Latents, SAEOutput, TrainingSignals
from sae_toolkit.saes.kept_pre_acts import forward_keeping, kept_pre_acts
from sae_toolkit.sparse_rows import SparseRows


class GatedSAE(AbstractSAE):
    """z = H(pi) ReLU(exp(r_mag) (pi - b_enc) + b_mag) with pi = (x - b_dec) W_enc + b_enc."""

    has_sparsity_penalty: ClassVar[bool] = True
    latent_axes: ClassVar[dict[str, int]] = {**AbstractSAE.latent_axes, "r_mag": 0, "b_mag": 0}

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractSAE.Config):
        """Choices of a Gated SAE."""

        l1_coefficient: float = 0.1
        """Penalty per sqrt(d_in) of gate activation, in normalised units (the mean squared error starts near 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.l1_coefficient >= 0:
                raise ValueError(f"GatedSAE: l1_coefficient={self.l1_coefficient} given, but it must not be negative.")

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.r_mag = nn.Parameter(torch.zeros(config.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(config.d_sae))

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return self.latents_and_gate(x)[0]

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        return forward_keeping(self, x, self.latents_and_gate)

    def latents_and_gate(self, x: Float[Tensor, "batch d_in"]) -> tuple[Latents, Latents]:
        """Latents, and ReLU(pi), of normalised samples."""
        gate = latents_above(x, self.W_enc, self.b_enc, self.b_dec)
        return each_latent(gate, magnitude, self.r_mag, self.b_enc, self.b_mag), gate

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        gate = kept_pre_acts(self, output)
        total = mean_total(gate)  # first: its gradient, one number, is then added in place to the matrix of the other
        via_gate = self.normaliser.normalise(x) - (decode_either(gate, self.W_dec.detach()) + self.b_dec.detach())
        weight = self.config.l1_coefficient * signals.sparsity_weight / self.d_in**0.5
        return {
            "mse": self.normalised_error(x, output).square().mean(),
            "l1": weight * total,
            "gate_mse": via_gate.square().mean(),
        }

    @torch.no_grad()
    def restart_(self, latents: Tensor, directions: Tensor, *, reads: Tensor) -> None:
        super().restart_(latents, directions, reads=reads)
        self.r_mag[latents] = 0.0
        self.b_mag[latents] = 0.0


def magnitude(
    pre_acts: Float[Tensor, "*places"],
    r_mag: Float[Tensor, "*each"],
    b_enc: Float[Tensor, "*each"],
    b_mag: Float[Tensor, "*each"],
) -> Float[Tensor, "*places"]:
    """ReLU(exp(r_mag) (pi - b_enc) + b_mag): how strongly a latent fires whose gate is open."""
    gain = r_mag.exp()
    return torch.addcmul(b_mag - gain * b_enc, gain, pre_acts).relu()
