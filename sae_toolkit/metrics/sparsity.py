"""How many latents fire, how evenly, and which never or nearly always do."""

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import BlockSums, block_numbers, divide, mean_score, sums_score
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.score_units import ScoreUnits, ratio_units
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.sparse_rows import SparseRows

RARE_RATE = 1e-5
DENSE_RATE = 0.1


class FiringCounts:
    """In how many samples each latent fired (was not 0)."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.counts: Int[Tensor, " d_sae"] | None = None

    def update(self, latents: SparseRows) -> None:
        """Adds one batch of latents."""
        counts = latents.column_counts().cpu()
        self.counts = counts if self.counts is None else self.counts + counts
        self.n_samples += latents.n_rows

    def rates(self) -> Float64[Tensor, " d_sae"]:
        """The share of samples in which each latent fired."""
        if self.counts is None or self.n_samples == 0:
            raise ValueError("FiringCounts: no sample seen, so firing rates are unknown. Call `update` first.")
        return self.counts.double() / self.n_samples

    def alive(self) -> Bool[Tensor, " d_sae"]:
        """Latents that fired at least once in what was seen."""
        return self.rates() > 0


class Sparsity(Metric):
    """L0 = number of latents that are not 0, per sample; and shares of latents by firing rate r.

    `l0`: mean over samples. `l0_cv`: standard deviation / mean of L0 over samples. `dead_fraction`: r = 0 in the
    `n_samples` seen. `rare_fraction`: r < 1e-5, dead ones included (below 100,000 samples the two are the same).
    `dense_fraction`: r > 0.1. The n of the last three is the number of latents.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        del source
        return [cls()]

    def __init__(self) -> None:
        self.firing = FiringCounts()
        self.sums = BlockSums("samples", "l0", "l0_squared")

    @property
    def n_samples(self) -> int:
        return self.firing.n_samples

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        latents = output.sparse_latents()
        rows = latents.rows[latents.values != 0]
        l0 = torch.bincount(rows, minlength=latents.n_rows).double()
        self.sums.update(
            block_numbers(batch, self.n_samples), samples=torch.ones_like(l0), l0=l0, l0_squared=l0.square()
        )
        self.firing.update(latents)

    def firing_rates(self) -> Float64[Tensor, " d_sae"]:
        """Share of samples in which each latent fired: the data of a density histogram."""
        return self.firing.rates()

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        rates = self.firing_rates()
        block_sums = self.sums.sums[self.sums.occupied].numpy()
        shares = {"dead_fraction": rates == 0, "rare_fraction": rates < RARE_RATE, "dense_fraction": rates > DENSE_RATE}
        return {
            "l0": self.sums.ratio_score("l0", "samples", n=self.n_samples, id="l0/v1"),
            "l0_cv": sums_score(block_sums, coefficient_of_variation, n=self.n_samples, id="l0_cv/v1"),
        } | {name: mean_score(share.double(), id=f"{name}/v1") for name, share in shares.items()}

    def units(self, sae: AbstractDictionary) -> dict[str, ScoreUnits]:
        del sae
        return {"l0": ratio_units(self.sums, "l0", "samples", "l0/v1")}


def coefficient_of_variation(sums: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """Standard deviation over mean from the columns count, sum, sum of squares; NaN where the mean is 0."""
    count, total, squares = sums.T
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return divide(deviation, mean, otherwise=np.nan)
