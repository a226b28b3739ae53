"""Orthogonal matching pursuit SAE: the latents are solved for, only the dictionary is learned.

Dictionary learning by gradient (Olshausen & Field 1997; online: Mairal et al. 2010, "Online Learning for Matrix
Factorization and Sparse Coding") with non-negative OMP (Pati et al. 1993) as its sparse coding step. The latents
minimise the same squared error that the dictionary does, so the gradient of the minimum is that with the latents held
fixed (Danskin's theorem), and nothing is differentiated through the pursuit.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import SelectingConfig, current_k
from sae_toolkit.saes.base import SAEOutput, TrainingSignals
from sae_toolkit.saes.coders import MatchingPursuit
from sae_toolkit.saes.tied import TiedSAE
from sae_toolkit.sparse_rows import SparseRows


class OrthogonalPursuitSAE(TiedSAE):
    """z = non-negative OMP of x - b_dec in the decoder rows, with at most k latents; loss = mean squared error."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of an SAE with orthogonal matching pursuit as encoder."""

    config: Config

    @torch.no_grad()
    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        lengths = self.W_dec.norm(dim=1).clamp_min(torch.finfo(self.W_dec.dtype).tiny)
        coder = MatchingPursuit(current_k(self, self.config))
        found = coder.encode(x - self.b_dec, self.W_dec / lengths.unsqueeze(1))
        return SparseRows(found.values / lengths[found.indices], found.indices, found.offsets, found.shape)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}
