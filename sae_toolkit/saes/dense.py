"""What variants share whose latents are a function of dense pre-activations, latent by latent."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput
from sae_toolkit.saes.sparse_ops import dense_pre_acts


class DenseSAE(AbstractSAE):
    """z = activate((x - b_dec) W_enc + b_enc). Its loss finds the pre-activations in the output (training mode)."""

    @abstractmethod
    def activate(self, pre_acts: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
        """Latents from pre-activations."""

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return self.activate(dense_pre_acts(x, self.W_enc, self.b_enc, self.b_dec))

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        if not self.training:
            return super().forward(x)
        pre_acts = dense_pre_acts(self.normalised_rows(x), self.W_enc, self.b_enc, self.b_dec)
        shape = (*x.shape[:-1], self.d_sae)
        latents = self.activate(pre_acts).reshape(shape)
        return SAEOutput(self.decode(latents), latents, pre_acts.reshape(shape))

    def trained_pre_acts(self, output: SAEOutput) -> Float[Tensor, "*batch d_sae"]:
        """The pre-activations behind an output; a ValueError for an output of eval mode, which has none."""
        if output.pre_acts is None:
            raise ValueError(
                f"{type(self).__name__}.loss_terms: the output given was computed in eval mode, which keeps no "
                f"pre-activations. Call train() on the SAE before the forward pass."
            )
        return output.pre_acts
