"""Matching pursuit SAE (Costa et al. 2025, "From Flat to Hierarchical: Extracting Sparse Representations with Matching
Pursuit", arXiv 2506.03093): the encoder is the decoder, used greedily.

From the residual r = x - b_dec, k times: take the latent j with the largest r . d_j, add that to z_j, subtract z_j d_j
from r (algorithm 1). What was explained stays explained, so that latents chosen later are conditional on earlier ones.
Gradients flow through all coefficients; the choices have none.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, smallest_selected
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts


class MatchingPursuitSAE(AbstractSAE):
    """z by k greedy steps with the decoder's own rows; loss = mean squared error.

    A latent may be taken more than once, its coefficients add up; a sample that correlates with no latent any more
    takes no further one. A step divides by ||d_j||^2, which is 1 in training.
    """

    tied_encoder: ClassVar[bool] = True
    latent_axes: ClassVar[dict[str, int]] = {"W_dec": 0}

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of a matching pursuit SAE; `k` is the number of greedy steps."""

    config: Config

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:  # type: ignore[override]  # noqa: N802
        """What latents read, for whoever asks (AuxK, exports): the decoder."""
        return self.W_dec.T

    @property
    def b_enc(self) -> Float[Tensor, " d_sae"]:  # type: ignore[override]
        """0, as the decoder has none for each latent."""
        return self.W_dec.new_zeros(self.d_sae)

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        centred = x - self.b_dec
        chosen = greedy_choices(centred.detach(), self.W_dec.detach(), current_k(self, self.config))
        atoms = self.W_dec[chosen.clamp_min(0)] * (chosen >= 0).unsqueeze(-1)  # [batch k d_in]
        lengths = atoms.square().sum(-1).clamp_min(torch.finfo(x.dtype).tiny)
        residual, coefficients = centred, []
        for step in range(chosen.shape[1]):
            atom = atoms[:, step]
            coefficient = (residual * atom).sum(-1) / lengths[:, step]
            residual = residual - coefficient.unsqueeze(-1) * atom
            coefficients.append(coefficient)
        return added_up(torch.stack(coefficients, dim=1), chosen, self.d_sae)

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}


@torch.no_grad()
def greedy_choices(
    residual: Float[Tensor, "batch d_in"], W_dec: Float[Tensor, "d_sae d_in"], k: int
) -> Int[Tensor, "batch k"]:
    """The latent that each of k steps takes; -1 once no latent has a positive correlation with the residual."""
    units = W_dec / W_dec.norm(dim=1, keepdim=True).clamp_min(torch.finfo(W_dec.dtype).tiny)
    chosen = []
    for _ in range(k):
        best, index = (residual @ units.T).max(dim=1)
        residual = residual - best.clamp_min(0).unsqueeze(1) * units[index]
        chosen.append(torch.where(best > 0, index, -1))
    return torch.stack(chosen, dim=1)


def added_up(values: Float[Tensor, "batch k"], chosen: Int[Tensor, "batch k"], n_columns: int) -> SparseRows:
    """Sparse rows in which a column chosen several times occurs once, with the sum; -1 is no choice."""
    same = chosen.unsqueeze(2) == chosen.unsqueeze(1)  # [batch k k]
    first = same.to(torch.int8).argmax(2)  # where a column was chosen for the first time
    sums = torch.zeros_like(values).scatter_add(1, first, values)
    kept = (first == torch.arange(chosen.shape[1], device=chosen.device)) & (chosen >= 0)
    return SparseRows(sums[kept], chosen[kept], offsets_of_counts(kept.sum(1)), (chosen.shape[0], n_columns))
