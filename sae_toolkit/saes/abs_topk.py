"""AbsTopK SAE (Zhu et al. 2025, "AbsTopK: Rethinking Sparse Autoencoders for Bidirectional Features", 2510.00404).

Keeps the k pre-activations that are largest in absolute value, with their signs: one latent stands for both ends of an
axis. There is no ReLU.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, smallest_selected
from sae_toolkit.saes.selection import picked_of_rows, top_per_row
from sae_toolkit.saes.sparse_ops import with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows


class AbsTopKSAE(AbstractSAE):
    """z = p where |p| is among the k largest, p = (x - b_dec) W_enc + b_enc; loss = mean squared error."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of an AbsTopK SAE."""

    config: Config
    restarted_encoder_scale: ClassVar[float] = 1.0

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        k = current_k(self, self.config)
        selected = picked_of_rows(x.detach(), self.encoder(), lambda pre_acts: top_per_row(pre_acts.abs(), k)[1])
        return with_encoder_gradient(selected, x, self.W_enc, self.b_enc, self.b_dec)

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}
