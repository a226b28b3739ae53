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
from sae_toolkit.saes.sparse_ops import dense_pre_acts, selected_pre_acts
from sae_toolkit.sparse_rows import SparseRows


class AbsTopKSAE(AbstractSAE):
    """z = p where |p| is among the k largest, p = (x - b_dec) W_enc + b_enc; loss = mean squared error."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of an AbsTopK SAE."""

    config: Config
    restarted_encoder_scale: ClassVar[float] = 1.0

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        pre_acts = dense_pre_acts(x, self.W_enc, self.b_enc, self.b_dec).detach()
        top = pre_acts.abs().topk(current_k(self, self.config), dim=-1, sorted=False)
        selection = SparseRows.from_topk(top.values, top.indices, self.d_sae)
        return selected_pre_acts(pre_acts, selection, x, self.W_enc, self.b_enc, self.b_dec)

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}
