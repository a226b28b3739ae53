"""TopK SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093, sections 2.3-2.4)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, largest_of_rows, smallest_selected
from sae_toolkit.sparse_rows import SparseRows


class TopKSAE(AbstractSAE):
    """z = ReLU(TopK((x - b_dec) W_enc + b_enc)), x_hat = z W_dec + b_dec, loss = mean squared error."""

    restarted_encoder_scale: ClassVar[float] = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of a TopK SAE."""

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        return largest_of_rows(self, x, current_k(self, self.config))

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}
