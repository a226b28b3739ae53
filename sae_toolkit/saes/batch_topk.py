"""BatchTopK SAE (Bussmann, Leask & Nanda 2024, arXiv 2412.06410): k latents per sample on average, not for each.

Training keeps the batch * k largest activations of the whole batch (section 3, equation 5). Inference must not depend
on the batch, so it keeps what exceeds one threshold (equation 7). The paper averages the smallest kept activation over
batches, which fires too much for small k; here the threshold is the quantile that gives exactly k per sample on data.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.auxiliary import SelectingConfig, current_k, smallest_selected
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.selection import all_above, largest_positive, top_of_batch
from sae_toolkit.saes.sparse_ops import with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows

ALWAYS_KEPT = 65_536
"""Largest activations kept per calibration batch even where 2 k per sample are fewer: small batches are exact."""


class BatchwiseTopK(AbstractSAE):
    """z = p where p = ReLU((x - b_dec) W_enc + b_enc) is among the batch * k largest (training) or > threshold.

    What BatchTopK SAEs with different losses share; no variant by itself.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of an SAE that selects the batch * k largest latents of a batch."""

    config: Config
    restarted_encoder_scale: ClassVar[float] = 1.0
    threshold: Tensor
    """Scalar fp32 buffer; NaN until calibrated."""

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.register_buffer("threshold", torch.tensor(float("nan")))

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        if self.training:
            n = current_k(self, self.config) * x.shape[0]
            selected = top_of_batch(x.detach(), self.encoder(), n=n, rank_in=self.ranking_dtype(x))
        else:
            selected = all_above(x.detach(), self.encoder(), threshold=self.calibrated_threshold())
        return with_encoder_gradient(selected, x, self.W_enc, self.b_enc, self.b_dec)

    def calibrated_threshold(self) -> float:
        """What an activation must exceed at inference."""
        threshold = float(self.threshold)
        if isnan(threshold):
            raise ValueError(
                f"{type(self).__name__}: encoding in eval mode needs a threshold, but none has been calibrated. Train "
                "it with `train`, or call `calibrate_` on batches of raw activations first."
            )
        return threshold

    @torch.no_grad()
    def calibrate_(self, batches: Iterable[Float[Tensor, "_ d_in"]]) -> None:
        """Sets the threshold at which the mean number of latents over all samples is k (or as many as are > 0)."""
        kept: list[Tensor] = []
        n_samples = 0
        for x in batches:
            n_samples += x.shape[0]
            candidates = max(2 * self.config.k * x.shape[0], ALWAYS_KEPT)
            normalised = self.normaliser.normalise(x)
            kept.append(largest_positive(normalised, self.encoder(), n=candidates, rank_in=normalised.dtype).values)
        if n_samples == 0:
            raise ValueError(
                f"{type(self).__name__}.calibrate_: no samples given; pass at least one batch of activations."
            )
        values = torch.cat(kept)
        wanted = self.config.k * n_samples
        if values.numel() <= wanted:
            self.threshold.zero_()
            return
        # Between two values, never on one: the same row in a batch of another size may come out one rounding away.
        last_kept, first_dropped = values.topk(wanted + 1).values[-2:]
        middle = (last_kept + first_dropped) / 2
        self.threshold.copy_(torch.where(middle < last_kept, middle, first_dropped))

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)


class BatchTopKSAE(BatchwiseTopK):
    """BatchTopK selection, loss = mean squared error."""

    @dataclass(frozen=True, kw_only=True)
    class Config(BatchwiseTopK.Config):
        """Choices of a BatchTopK SAE."""

    config: Config

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(x, output).square().mean()}
