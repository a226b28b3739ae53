"""Which latent stands for which feature where only firing is known, not directions.

The best of d_sae latents looks good by chance on the samples it was chosen on. So the first half of the samples chooses
latents and thresholds, and F1 and AUROC are those of the second half.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from sae_toolkit.metrics.co_firing import Column, matrix_of
from sae_toolkit.metrics.detection import Levels, samples_between

TUNED_CANDIDATES = 4
"""Latents per feature and ranking whose threshold is tuned: tuning all would sort every latent for every feature."""
NEVER = Column(np.zeros(0, dtype=np.int32), np.zeros(0))
"""A latent that does not fire."""


class Detector(NamedTuple):
    """The latent that best tells when something fires, and how well it does on samples it was not chosen on."""

    latent: int
    """-1 where no latent fires together with it in the selection half, or it is silent there."""
    threshold: float
    """The latent detects where z > threshold; of the highest F1 on the selection half."""
    f1: float
    """On the scoring half; 0 without a latent, NaN where the feature is silent in either half."""
    auroc: float
    """On the scoring half; 1/2 without a latent, NaN where the feature is silent in either half or always on."""


@dataclass(frozen=True)
class FiringMatching:
    """One `Detector` per feature, field by field. Several features may share a latent: that is merging."""

    latent: Int[Tensor, " n_features"]
    threshold: Float64[Tensor, " n_features"]
    f1: Float64[Tensor, " n_features"]
    auroc: Float64[Tensor, " n_features"]


def match_by_firing(features: Sequence[Column], latents: Sequence[Column], n_samples: int) -> FiringMatching:
    """The best detector of every feature; columns as `KeptSamples` gives them, over samples 0 to n_samples - 1."""
    search = DetectorSearch(latents, n_samples)
    found = [search.best(feature) for feature in features]
    numbers = torch.tensor([detector[1:] for detector in found], dtype=torch.float64).reshape(-1, 3)
    latent = torch.tensor([detector.latent for detector in found], dtype=torch.long)
    return FiringMatching(latent, numbers[:, 0], numbers[:, 1], numbers[:, 2])


class DetectorSearch:
    """Finds the best detector of one feature after another among the same latents.

    Candidates are the latents of highest F1 as "z > 0" and those of highest correlation of z with "feature on" (4 each,
    selection half); the one whose F1 with a tuned threshold is highest wins, of equals the first. A latent that is
    among the best only after tuning, in neither ranking before, is not found.
    """

    def __init__(self, latents: Sequence[Column], n_samples: int) -> None:
        self.latents, self.n_samples, self.half = latents, n_samples, n_samples // 2
        firing = [positive(samples_between(latent, 0, self.half)) for latent in latents]
        self.rows = matrix_of(firing, self.half)
        self.totals = self.sums(np.arange(self.half))

    def best(self, feature: Column, *, without: np.ndarray | None = None) -> Detector:
        """The best detector of a feature; samples in `without` (sorted numbers) do not count, as if never seen."""
        without = np.zeros(0, dtype=np.int64) if without is None else without
        feature = leave_out(feature, without)
        chooses, scores = (0, self.half), (self.half, self.n_samples)
        if any(len(samples_between(feature, *half).samples) == 0 for half in (chooses, scores)):
            return Detector(-1, 0.0, float("nan"), float("nan"))
        winner, best_f1, threshold = -1, 0.0, 0.0
        for j in self.candidates(feature, without):
            levels = levels_in(chooses, leave_out(self.latents[j], without), feature, without)
            f1 = float(levels.f1_above()[levels.scores > 0].max())
            if f1 > best_f1:
                winner, best_f1, threshold = j, f1, levels.best_threshold()
        latent = leave_out(self.latents[winner], without) if winner >= 0 else NEVER
        levels = levels_in(scores, latent, feature, without)
        return Detector(winner, threshold, levels.f1_over(threshold), levels.auroc())

    def candidates(self, feature: Column, without: np.ndarray) -> list[int]:
        """The latents worth tuning for a feature, by number; all of them fire with it in the selection half."""
        on = samples_between(feature, 0, self.half).samples
        unseen = without[: np.searchsorted(without, self.half)]
        n = self.half - len(unseen)
        hits, with_it, _ = self.sums(on)
        counts, sums, squares = self.totals - self.sums(unseen)
        f1 = 2 * hits / (len(on) + counts).clip(min=1)
        variance = (squares - sums**2 / n).clip(min=0)
        covariance = with_it - sums * len(on) / n
        varies = variance > 1e-12 * squares
        correlation = np.where(varies, covariance / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        ranked = [largest(score, TUNED_CANDIDATES) for score in (f1, correlation)]
        return [int(j) for j in np.unique(np.concatenate(ranked)) if hits[j] > 0]

    def sums(self, samples: np.ndarray) -> Float64[np.ndarray, "3 d_sae"]:
        """Of every latent's positive activations in some samples of the selection half: number, sum, sum of squares."""
        part = self.rows[samples]
        weights = (np.ones_like(part.data), part.data, part.data**2)
        sums = [np.bincount(part.indices, weights=w, minlength=len(self.latents)) for w in weights]
        return np.stack(sums).astype(np.float64)  # bincount of nothing is integer


def largest(scores: Float64[np.ndarray, " n"], k: int) -> Int[np.ndarray, " k"]:
    """Places of the k largest, of equals the first; sorting all of a wide dictionary would take half of all time."""
    if len(scores) <= k:
        return np.arange(len(scores))
    cut = np.partition(scores, -k)[-k]
    above = np.flatnonzero(scores > cut)
    return np.concatenate([above, np.flatnonzero(scores == cut)[: k - len(above)]])


def levels_in(half: tuple[int, int], latent: Column, feature: Column, without: np.ndarray) -> Levels:
    """Of a latent against a feature in a range of samples, of which those in `without` were taken out."""
    start, stop = half
    n_left = stop - start - len(samples_between(Column(without, without), start, stop).samples)
    return Levels(samples_between(latent, start, stop), samples_between(feature, start, stop), n_left)


def positive(column: Column) -> Column:
    """The entries above 0: where a latent fires."""
    fires = column.values > 0
    return Column(column.samples[fires], column.values[fires])


def leave_out(column: Column, samples: np.ndarray) -> Column:
    """The entries of a column outside some samples."""
    if len(samples) == 0:
        return column
    kept = ~np.isin(column.samples, samples)
    return Column(column.samples[kept], column.values[kept])
