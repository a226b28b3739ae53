"""Matryoshka SAEs (Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka Sparse Autoencoders", arXiv
2503.17547): the first latents alone must reconstruct, too, so that general features are not absorbed by special ones.

The loss is the sum over nested prefixes m of ||x - (z[:m] W_dec[:m] + b_dec)||^2 (equation 4); here it is their mean,
so that its scale, and the best learning rate, do not depend on how many prefixes there are.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.batch_topk import BatchwiseTopK
from sae_toolkit.saes.sparse_ops import sparse_decode
from sae_toolkit.saes.topk import RowwiseTopK
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts

INNER_PREFIXES = (0.125, 0.25, 0.5)
"""Shares of the dictionary that reconstruct by themselves, beside the whole."""


class MatryoshkaTopKSAE(RowwiseTopK):
    """TopK whose first latents reconstruct by themselves."""

    @dataclass(frozen=True, kw_only=True)
    class Config(RowwiseTopK.Config):
        """Choices of a Matryoshka TopK SAE."""

        inner_prefixes: tuple[float, ...] = INNER_PREFIXES
        """Increasing shares of the latents that also reconstruct by themselves; the whole dictionary always does."""

        def __post_init__(self) -> None:
            super().__post_init__()
            prefix_lengths(self.inner_prefixes, self.d_sae)

    config: Config

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": nested_mse(self, x, output, prefix_lengths(self.config.inner_prefixes, self.d_sae))}


class MatryoshkaBatchTopKSAE(BatchwiseTopK):
    """BatchTopK whose first latents reconstruct by themselves: the variant of the paper."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BatchwiseTopK.Config):
        """Choices of a Matryoshka BatchTopK SAE."""

        inner_prefixes: tuple[float, ...] = INNER_PREFIXES
        """Increasing shares of the latents that also reconstruct by themselves; the whole dictionary always does."""

        def __post_init__(self) -> None:
            super().__post_init__()
            prefix_lengths(self.inner_prefixes, self.d_sae)

    config: Config

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": nested_mse(self, x, output, prefix_lengths(self.config.inner_prefixes, self.d_sae))}


def prefix_lengths(inner_prefixes: tuple[float, ...], d_sae: int) -> tuple[int, ...]:
    """Latents in each inner prefix; shares that do not increase strictly, in latents, are refused."""
    lengths = tuple(round(share * d_sae) for share in inner_prefixes)
    bounds = (0, *lengths, d_sae)
    if any(after <= before for before, after in pairwise(bounds)):
        raise ValueError(
            f"Matryoshka: inner_prefixes={inner_prefixes} given, which are {lengths} of d_sae={d_sae} latents. "
            f"Choose shares between 0 and 1 that increase by at least one latent."
        )
    return lengths


def nested_mse(
    sae: AbstractSAE, x: Float[Tensor, "*batch d_in"], output: SAEOutput, lengths: tuple[int, ...]
) -> Float[Tensor, ""]:
    """The mean over all prefixes (the inner ones and the whole) of the mean squared error in normalised units."""
    losses = [sae.normalised_error(x, output).square().mean()]
    missing = sae.normaliser.normalise(x) - sae.b_dec
    latents = output.sparse_latents()
    for start, stop in zip((0, *lengths), lengths, strict=False):
        missing = missing - sparse_decode(columns_between(latents, start, stop), sae.W_dec)
        losses.append(missing.square().mean())
    return torch.stack(losses).mean()


def columns_between(latents: SparseRows, start: int, stop: int) -> SparseRows:
    """The same rows with only the entries of some neighbouring columns."""
    kept = (latents.indices >= start) & (latents.indices < stop)
    counts = torch.bincount(latents.rows[kept], minlength=latents.n_rows)
    return SparseRows(latents.values[kept], latents.indices[kept], offsets_of_counts(counts), latents.shape)
