"""Orthogonal matching pursuit SAE: the latents are solved for, only the dictionary is learned.

Dictionary learning by gradient (Olshausen & Field 1997; online: Mairal et al. 2010, "Online Learning for Matrix
Factorization and Sparse Coding") with non-negative OMP (Pati et al. 1993) as its sparse coding step. The latents
minimise the same squared error that the dictionary does, so the gradient of the minimum is that with the latents held
fixed (Danskin's theorem), and nothing is differentiated through the pursuit.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.coders import MatchingPursuit
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, smallest_selected
from sae_toolkit.sparse_rows import SparseRows


class OrthogonalPursuitSAE(AbstractSAE):
    """z = non-negative OMP of x - b_dec in the decoder rows, with at most k latents; loss = mean squared error."""

    tied_encoder: ClassVar[bool] = True
    latent_axes: ClassVar[dict[str, int]] = {"W_dec": 0}

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of an SAE with orthogonal matching pursuit as encoder."""

    config: Config

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:  # type: ignore[override]  # noqa: N802
        """What latents read, for whoever asks (AuxK, exports): the decoder."""
        return self.W_dec.T

    @property
    def b_enc(self) -> Float[Tensor, " d_sae"]:  # type: ignore[override]
        """0, as the decoder has none for each latent."""
        return self.W_dec.new_zeros(self.d_sae)

    @torch.no_grad()
    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        lengths = self.W_dec.norm(dim=1).clamp_min(torch.finfo(self.W_dec.dtype).tiny)
        coder = MatchingPursuit(current_k(self, self.config))
        found = coder.encode(x - self.b_dec, self.W_dec / lengths.unsqueeze(1))
        return SparseRows(found.values / lengths[found.indices], found.indices, found.offsets, found.shape)

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}
