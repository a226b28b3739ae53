"""ReLU SAE with an L1 penalty weighted by decoder norm.

Bricken et al. 2023 ("Towards Monosemanticity"); the weighting by ||W_dec_i||, which makes a unit-norm constraint
unnecessary, is from Conerly et al. 2024 (Anthropic's April update, "Update on how we train SAEs").
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.active_latents import latents_above, mean_weighted_total
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.sparse_rows import SparseRows


class ReluSAE(AbstractSAE):
    """z = ReLU((x - b_dec) W_enc + b_enc); loss = mean squared error + l1 * mean_b sum_i z_i ||W_dec_i||."""

    has_sparsity_penalty: ClassVar[bool] = True
    unit_norm_decoder: ClassVar[bool] = False
    initial_decoder_norm: ClassVar[float] = 0.1  # Conerly et al. 2024; at 1 many latents start as near-duplicates

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractSAE.Config):
        """Choices of a ReLU SAE."""

        l1_coefficient: float = 0.1
        """Penalty per sqrt(d_in) of latent activation, in normalised units (the mean squared error starts near 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.l1_coefficient >= 0:
                raise ValueError(f"ReluSAE: l1_coefficient={self.l1_coefficient} given, but it must not be negative.")

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return latents_above(x, self.W_enc, self.b_enc, self.b_dec)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        error = self.normalised_error(x, output)
        sizes = mean_weighted_total(output.latent_acts, self.W_dec.norm(dim=1))
        l1 = self.config.l1_coefficient * signals.sparsity_weight * sizes / self.d_in**0.5
        return {"mse": error.square().mean(), "l1": l1}
