"""What variants share that read with their decoder: no W_enc and no b_enc of their own."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.saes.auxiliary import SelectingConfig, smallest_selected
from sae_toolkit.saes.base import AbstractSAE, SAEOutput


class TiedSAE(AbstractSAE):
    """W_enc is W_dec^T and b_enc is 0, for whoever asks what a latent reads (AuxK, exports)."""

    tied_encoder: ClassVar[bool] = True
    latent_axes: ClassVar[dict[str, int]] = {"W_dec": 0}
    config: SelectingConfig

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:  # type: ignore[override]  # noqa: N802
        return self.W_dec.T

    @property
    def b_enc(self) -> Float[Tensor, " d_sae"]:  # type: ignore[override]
        return self.W_dec.new_zeros(self.d_sae)

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    @torch.no_grad()
    def restart_(
        self, latents: Int[Tensor, " n"], directions: Float[Tensor, "n d_in"], *, encoder_length: Float[Tensor, ""]
    ) -> None:
        del encoder_length
        self.W_dec[latents] = directions
