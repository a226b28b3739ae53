"""GroupMax SAE: latents in k fixed groups of neighbours, the largest of each group fires (EleutherAI's sparsify, 2025).

A TopK whose selection is k independent maxima: cheaper than a top-k, and no group can be silent for long.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, smallest_selected
from sae_toolkit.saes.selection import picked_of_rows
from sae_toolkit.saes.sparse_ops import with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows


class GroupMaxSAE(AbstractSAE):
    """z = ReLU of the largest pre-activation in each of k groups of neighbouring latents; loss = mean squared error.

    Where k does not divide d_sae, the first groups hold one latent more than the last.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of a GroupMax SAE."""

    config: Config
    restarted_encoder_scale: ClassVar[float] = 1.0

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        k = current_k(self, self.config)
        selected = picked_of_rows(x.detach(), self.encoder(), lambda pre_acts: group_winners(pre_acts, k))
        chosen = with_encoder_gradient(selected, x, self.W_enc, self.b_enc, self.b_dec)
        return chosen.with_values(chosen.values.relu())

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}


def group_winners(pre_acts: Float[Tensor, "batch d_sae"], k: int) -> Int[Tensor, "batch k"]:
    """The column of the largest entry in each of k groups of neighbours."""
    batch, d_sae = pre_acts.shape
    size, n_larger = divmod(d_sae, k)
    start = n_larger * (size + 1)
    firsts = pre_acts[:, :start].reshape(batch, n_larger, size + 1)
    lasts = pre_acts[:, start:].reshape(batch, k - n_larger, size)
    columns = torch.arange(k, device=pre_acts.device)
    offsets = columns * size + columns.clamp_max(n_larger)
    inside = [part.argmax(-1) for part in (firsts, lasts) if part.shape[1] > 0]
    return torch.cat(inside, dim=1) + offsets
