"""What variants that select by rank share: k and its annealing, and the largest of each sample or of the batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput
from sae_toolkit.saes.selection import top_of_batch, top_of_rows
from sae_toolkit.saes.sparse_ops import with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows

ANNEALED_SHARE = 0.5
"""Share of the run, at its start, over which k moves from `initial_k` to `k`."""


@dataclass(frozen=True, kw_only=True)
class SelectingConfig(AbstractSAE.Config):
    """Choices of an SAE that selects latents by rank."""

    k: int
    """Latents selected per sample (on average, where the selection is batch-wide)."""
    initial_k: int | None = None
    """k at the start of training, from where it moves linearly to `k` over the first half of the run. None: `k`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.d_sae:
            raise ValueError(f"k={self.k} asked, but d_sae={self.d_sae}. Choose 1 <= k <= d_sae, or a wider SAE.")
        if self.initial_k is not None and not 1 <= self.initial_k <= self.d_sae:
            raise ValueError(
                f"initial_k={self.initial_k} asked, but d_sae={self.d_sae}. Choose 1 <= initial_k <= d_sae, or None."
            )


def current_k(sae: AbstractSAE, config: SelectingConfig) -> int:
    """Latents to select per sample now: `k` at inference, and on the way from `initial_k` in training mode."""
    if not sae.training or config.initial_k is None:
        return config.k
    return config.k + round((config.initial_k - config.k) * max(0.0, 1 - sae.progress / ANNEALED_SHARE))


def smallest_selected(output: SAEOutput, d_sae: int) -> Float[Tensor, " d_sae"]:
    """The mean over samples of the smallest active latent: what a latent selected by rank has to exceed."""
    acts = output.sparse_latents()
    rows = torch.full((acts.n_rows,), torch.inf, dtype=acts.values.dtype, device=acts.values.device)
    active = torch.where(acts.values.detach() != 0, acts.values.detach().abs(), torch.inf)
    smallest = rows.scatter_reduce(0, acts.rows, active, "amin")
    found = torch.isfinite(smallest)
    mean = torch.where(found, smallest, 0.0).sum() / found.sum().clamp_min(1)
    return mean.expand(d_sae)


def largest_of_rows(sae: AbstractSAE, x: Float[Tensor, "batch d_in"], k: int) -> SparseRows:
    """The k largest pre-activations of each normalised sample; the negative ones among them as 0."""
    selected = top_of_rows(x.detach(), sae.encoder(), k=k, rank_in=sae.ranking_dtype(x))
    chosen = with_encoder_gradient(selected, x, sae.W_enc, sae.b_enc, sae.centre)
    return chosen.with_values(chosen.values.relu())


def largest_of_batch(sae: AbstractSAE, x: Float[Tensor, "batch d_in"], n: int) -> SparseRows:
    """The n largest positive pre-activations of all normalised samples together, fewer where fewer are positive."""
    selected = top_of_batch(x.detach(), sae.encoder(), n=n, rank_in=sae.ranking_dtype(x))
    return with_encoder_gradient(selected, x, sae.W_enc, sae.b_enc, sae.centre)
