"""TopK SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093, sections 2.3-2.4)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import SelectingConfig, current_k, smallest_selected
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.selection import top_of_rows
from sae_toolkit.saes.sparse_ops import with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows


class RowwiseTopK(AbstractSAE):
    """z = ReLU(TopK((x - b_dec) W_enc + b_enc)): what TopK SAEs with different losses share. No variant by itself."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of an SAE that selects the k largest latents of each sample."""

    config: Config
    restarted_encoder_scale: ClassVar[float] = 1.0

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        return self.largest(x, current_k(self, self.config))

    def largest(self, x: Float[Tensor, "batch d_in"], k: int) -> SparseRows:
        """The k largest pre-activations of each normalised sample; the negative ones among them as 0."""
        selected = top_of_rows(x.detach(), self.encoder(), k=k, rank_in=self.ranking_dtype(x))
        chosen = with_encoder_gradient(selected, x, self.W_enc, self.b_enc, self.b_dec)
        return chosen.with_values(chosen.values.relu())

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)


class TopKSAE(RowwiseTopK):
    """z = ReLU(TopK((x - b_dec) W_enc + b_enc)), x_hat = z W_dec + b_dec, loss = mean squared error."""

    @dataclass(frozen=True, kw_only=True)
    class Config(RowwiseTopK.Config):
        """Choices of a TopK SAE."""

    config: Config

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}
