"""Multi-TopK SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093, section 5.4).

Loss = L(k) + L(4k) / 8: the same latents also have to reconstruct with 4k of them active, so that codes stay good at
other sparsities than the one trained for. The SAE's own output is the one with k.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.kept_pre_acts import forward_keeping, kept_pre_acts
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, largest_of_rows, smallest_selected
from sae_toolkit.sparse_rows import SparseRows

WIDER = 4
"""How many times k latents the second loss term uses."""


class MultiTopKSAE(AbstractSAE):
    """TopK with a second reconstruction from 4k latents in the loss; in training the k are chosen among the 4k."""

    restarted_encoder_scale: ClassVar[float] = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Config(SelectingConfig):
        """Choices of a Multi-TopK SAE."""

        multi_coefficient: float = 1 / 8
        """Weight of the mean squared error with 4k latents."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.multi_coefficient >= 0:
                raise ValueError(
                    f"MultiTopKSAE: multi_coefficient={self.multi_coefficient} given, but it must not be negative."
                )

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        return self.latents_and_more(x)[0]

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        return forward_keeping(self, x, self.latents_and_more)

    def latents_and_more(self, x: Float[Tensor, "batch d_in"]) -> tuple[SparseRows, SparseRows]:
        """The k largest latents, and in training mode the 4k largest, of normalised samples."""
        k = current_k(self, self.config)
        if not self.training:
            few = largest_of_rows(self, x, k)
            return few, few
        n = min(WIDER * k, self.d_sae)
        more = largest_of_rows(self, x, n)
        values, indices = more.values.view(-1, n), more.indices.view(-1, n)
        top = values.topk(k, dim=1, sorted=False)
        return SparseRows.from_topk(top.values, indices.gather(1, top.indices), self.d_sae), more

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, target: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        more = kept_pre_acts(self, output)
        wide_error = self.normalised_error(target, SAEOutput(self.decode(more), more))
        return {
            "mse": self.normalised_error(target, output).square().mean(),
            "multi_mse": self.config.multi_coefficient * wide_error.square().mean(),
        }
