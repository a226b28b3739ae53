"""TopK SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093, sections 2.3-2.4)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import auxk_loss, refuse_impossible_auxk
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.sparse_ops import dense_pre_acts, selected_pre_acts
from sae_toolkit.sparse_rows import SparseRows


class TopKSAE(AbstractSAE):
    """z = ReLU(TopK((x - b_dec) W_enc + b_enc)), x_hat = z W_dec + b_dec, loss = mean squared error + AuxK."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractSAE.Config):
        """Choices of a TopK SAE."""

        k: int
        """Latents selected per sample."""
        aux_coefficient: float = 1 / 32
        """Weight of the AuxK loss relative to the reconstruction loss; 0 switches it off."""
        k_aux: int = 512
        """Dead latents that model the residual of one sample, at most."""

        def __post_init__(self) -> None:
            super().__post_init__()
            refuse_impossible_auxk("TopKSAE", aux_coefficient=self.aux_coefficient, k_aux=self.k_aux)
            if not 1 <= self.k <= self.d_sae:
                raise ValueError(
                    f"TopKSAE: k={self.k} asked, but d_sae={self.d_sae}. Choose 1 <= k <= d_sae, or a wider SAE."
                )

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        pre_acts = dense_pre_acts(x, self.W_enc, self.b_enc, self.b_dec).detach()
        top = pre_acts.topk(self.config.k, dim=-1, sorted=False)
        selection = SparseRows.from_topk(top.values, top.indices, self.d_sae)
        chosen = selected_pre_acts(pre_acts, selection, x, self.W_enc, self.b_enc, self.b_dec)
        return SparseRows(chosen.values.relu(), chosen.indices, chosen.offsets, chosen.shape)

    def loss_terms(
        self, x: Float[Tensor, "batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        error = self.normalised_error(x, output)
        auxk = auxk_loss(self, x, error, signals.dead, self.config.k_aux)
        return {"mse": error.square().mean(), "auxk": self.config.aux_coefficient * auxk}
