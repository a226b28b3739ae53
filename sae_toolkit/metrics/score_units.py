"""What a score is the mean of: features, latents or blocks of tokens, so that two SAEs can be compared unit by unit."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.metrics.bootstrap import BlockSums, Statistic, mean_score, ratio
from sae_toolkit.metrics.score import Score

Unit = Literal["feature", "block"]
"""True features, or blocks of held-out samples (documents where they are known, else runs of samples)."""


class ScoreUnits(NamedTuple):
    """One value per unit, whose mean is the score; NaN where a unit has no answer."""

    values: Float64[np.ndarray, " n_units"]
    unit: Unit
    id: str
    """The score's definition."""

    def score(self) -> Score:
        """Their mean, its interval resampled over them."""
        return mean_score(torch.from_numpy(self.values), id=self.id)


def feature_units(values: Float[Tensor, " n_features"], id: str) -> ScoreUnits:
    """Of a score that is a mean over features."""
    return ScoreUnits(values.double().cpu().numpy(), "feature", id)


def block_units(block_sums: Float64[np.ndarray, "n_blocks n_columns"], statistic: Statistic, id: str) -> ScoreUnits:
    """Of any statistic of sums over blocks: its delete-one jackknife pseudo-values (Tukey 1958), moved to its value.

    Their variance over n_blocks is the statistic's variance to first order, also for ratios and explained variance.
    """
    n_blocks = len(block_sums)
    total = block_sums.sum(0, keepdims=True)
    if n_blocks < 2:
        return ScoreUnits(np.full(n_blocks, statistic(total)), "block", id)
    without = statistic(total - block_sums)
    return ScoreUnits(statistic(total)[0] + (n_blocks - 1) * (without.mean() - without), "block", id)


def ratio_units(sums: BlockSums, top: str, bottom: str, id: str) -> ScoreUnits:
    """Of the ratio of two named sums."""
    columns = [sums.names.index(top), sums.names.index(bottom)]
    return block_units(sums.sums[sums.occupied][:, columns].numpy(), ratio, id)
