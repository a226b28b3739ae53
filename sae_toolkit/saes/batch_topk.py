"""BatchTopK SAE (Bussmann, Leask & Nanda 2024, arXiv 2412.06410): k latents per sample on average, not for each.

Training keeps the batch * k largest activations of the whole batch (section 3, equation 5). Inference must not depend
on the batch, so it keeps what exceeds one calibrated threshold (equation 7; `batch_threshold.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.batch_threshold import above_calibrated, threshold_for_mean, uncalibrated_threshold
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, largest_of_batch, smallest_selected
from sae_toolkit.sparse_rows import SparseRows


class BatchTopKSAE(AbstractSAE):
    """z = p where p = ReLU((x - b_dec) W_enc + b_enc) is among the batch * k largest (training) or > threshold.

    Loss = mean squared error.
    """

    restarted_encoder_scale: ClassVar[float] = 1.0
    threshold: Tensor
    """Scalar fp32 buffer; NaN until calibrated."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of a BatchTopK SAE."""

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
        return {"mse": self.normalised_error(x, output).square().mean()}
