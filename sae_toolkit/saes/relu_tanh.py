"""ReLU SAE with a tanh penalty (Jermyn et al. 2024, "Tanh penalty in dictionary learning", Anthropic, February).

Loss = mean squared error + tanh * mean_b sum_i tanh(c z_i ||W_dec_i||): strongly active latents are counted, not
shrunk, because the slope of tanh vanishes there.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.active_latents import latents_above
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.penalties import sizes, tanh_penalty
from sae_toolkit.sparse_rows import SparseRows


class TanhReluSAE(AbstractSAE):
    """z = ReLU((x - b_dec) W_enc + b_enc), penalised by tanh(c z_i ||W_dec_i||)."""

    has_sparsity_penalty: ClassVar[bool] = True
    unit_norm_decoder: ClassVar[bool] = False
    initial_decoder_norm: ClassVar[float] = 0.1

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractSAE.Config):
        """Choices of a ReLU SAE with a tanh penalty."""

        tanh_coefficient: float = 1.0
        """Penalty per d_in latents that are clearly active."""
        steepness: float = 1.0
        """c: contributions longer than about 1 / c (normalised units) count as active."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.tanh_coefficient >= 0 or not self.steepness > 0:
                raise ValueError(
                    f"TanhReluSAE: tanh_coefficient={self.tanh_coefficient}, steepness={self.steepness} given; "
                    f"the first must not be negative, the second must be positive."
                )

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return latents_above(x, self.W_enc, self.b_enc, self.b_dec)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        penalty = tanh_penalty(sizes(output.latent_acts, self.W_dec), self.config.steepness)
        weight = self.config.tanh_coefficient * signals.sparsity_weight / self.d_in
        return {"mse": self.normalised_error(x, output).square().mean(), "tanh": weight * penalty}
