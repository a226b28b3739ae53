"""TopK SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093, sections 2.3-2.4)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import SelectingConfig, mse_and_auxk
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.selection import top_of_rows
from sae_toolkit.saes.sparse_ops import with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows


class TopKSAE(AbstractSAE):
    """z = ReLU(TopK((x - b_dec) W_enc + b_enc)), x_hat = z W_dec + b_dec, loss = mean squared error + AuxK."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of a TopK SAE."""

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        selected = top_of_rows(x.detach(), self.encoder(), k=self.config.k, rank_in=self.ranking_dtype(x))
        chosen = with_encoder_gradient(selected, x, self.W_enc, self.b_enc, self.b_dec)
        return chosen.with_values(chosen.values.relu())

    def loss_terms(
        self, x: Float[Tensor, "batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return mse_and_auxk(self, self.config, x, output, signals)
