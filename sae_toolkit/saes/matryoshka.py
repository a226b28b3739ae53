"""Matryoshka SAEs (Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka Sparse Autoencoders", arXiv
2503.17547): the first latents alone must reconstruct, too, so that general features are not absorbed by special ones.

The loss is the sum over nested prefixes m of ||x - (z[:m] W_dec[:m] + b_dec)||^2 (equation 4); here it is their mean,
so that its scale, and the best learning rate, do not depend on how many prefixes there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.batch_threshold import above_calibrated, threshold_for_mean, uncalibrated_threshold
from sae_toolkit.saes.nested_decode import nested_decode
from sae_toolkit.saes.rank_selection import (
    SelectingConfig,
    current_k,
    largest_of_batch,
    largest_of_rows,
    smallest_selected,
)
from sae_toolkit.sparse_rows import SparseRows

INNER_PREFIXES = (0.125, 0.25, 0.5)
"""Shares of the dictionary that reconstruct by themselves, beside the whole."""


@dataclass(frozen=True, kw_only=True)
class NestedConfig(SelectingConfig):
    """Choices of an SAE with nested dictionaries."""

    inner_prefixes: tuple[float, ...] = INNER_PREFIXES
    """Increasing shares of the latents that also reconstruct by themselves; the whole dictionary always does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        prefix_lengths(self.inner_prefixes, self.d_sae)


class MatryoshkaTopKSAE(AbstractSAE):
    """TopK whose first latents reconstruct by themselves."""

    restarted_encoder_scale: ClassVar[float] = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Config(NestedConfig):
        """Choices of a Matryoshka TopK SAE."""

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        return largest_of_rows(self, x, current_k(self, self.config))

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": nested_mse(self, x, output, prefix_lengths(self.config.inner_prefixes, self.d_sae))}


class MatryoshkaBatchTopKSAE(AbstractSAE):
    """BatchTopK whose first latents reconstruct by themselves: the variant of the paper."""

    restarted_encoder_scale: ClassVar[float] = 1.0
    threshold: Tensor
    """Scalar fp32 buffer; NaN until calibrated."""

    @dataclass(frozen=True, kw_only=True)
    class Config(NestedConfig):
        """Choices of a Matryoshka BatchTopK SAE."""

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.register_buffer("threshold", uncalibrated_threshold())

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        if self.training:
            return largest_of_batch(self, x, current_k(self, self.config) * x.shape[0])
        return above_calibrated(self, x, self.threshold)

    def calibrate_(self, batches: Iterable[Float[Tensor, "_ d_in"]]) -> None:
        self.threshold.copy_(threshold_for_mean(self, batches, self.config.k))

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

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
    if not lengths:  # the whole alone, which `output` has decoded already
        return sae.normalised_error(x, output).square().mean()
    reconstructions = nested_decode(output.sparse_latents(), sae.W_dec, (*lengths, sae.d_sae))
    target = sae.normaliser.normalise(x) - sae.b_dec
    return (target.unsqueeze(-2) - reconstructions).square().mean()
