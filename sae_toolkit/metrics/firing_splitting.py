"""Splitting and merging where it is known what fires but not along which direction: told by firing alone.

What a latent is taken for is decided on the first half of the samples and must hold on the second.
"""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column, KeptSamples, indicators_of, matrix_of
from sae_toolkit.metrics.detection import samples_between
from sae_toolkit.metrics.firing_matching import leave_out, levels_in, positive
from sae_toolkit.metrics.matching import BLOCK_ENTRIES
from sae_toolkit.metrics.merging import TELLS
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

SPLITTING_SAMPLES = 50_000
PART_PRECISION = 0.7
"""(P(feature on | latent fires) - P(feature on)) / (1 - P(feature on)) from which a latent is a part of the feature."""
PART_RECALL = 0.1
"""P(latent fires | feature on) from which it is."""
SAME_SAMPLES = 0.5
"""Of the firings of the rarer of two parts: the share shared with the other above which they are copies, not pieces."""
LIKELIEST_FEATURES = 3
"""Features per latent that may be merged in it: those of highest F1."""
ENOUGH_FIRINGS = 20
"""Firings of a feature, without the other one, from which its AUROC counts."""

Halves = tuple[Any, Any]
"""Of the samples, each a sparse 0/1 matrix."""


class Guess(NamedTuple):
    """What a latent is taken for."""

    likeliest: list[int]
    """Features by F1 of "z > 0" as their detector, on the first half, the best first; only those above 0."""
    is_part: bool
    """Whether the latent is precise for the first of them, and covers enough of it, on either half."""


class FiringSplitting(Metric):
    """Over the first 50,000 samples; a latent fires where z > 0. Thresholds are those of the constants above.

    A latent is a *part* of the feature it fits best (F1) if it is precise for it, its base rate taken out, and fires in
    >= 10 % of its samples. `firing_splitting_rate`: share of features with two parts that share at most half of the
    rarer one's firings: pieces. `firing_duplicate_rate`: with two parts that share more: copies.
    `firing_merging_rate`: of the latents that tell when the feature they fit best is on (AUROC > .7), the share that
    tell it of another one, too, of each while the other is off: firing together does not pass for being merged.
    AUROC on the second half. Latents that stand for nothing do not count. Intervals: over features, or those latents.
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls()] if source.feature_names is not None and not isinstance(source, KnownFeatures) else []

    def __init__(self) -> None:
        self.kept = KeptSamples(SPLITTING_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        features, n = self.kept.feature_columns(), self.kept.n_samples
        latents = [positive(latent) for latent in self.kept.latent_columns()]
        guesses = guess(features, latents, n)
        parts: dict[int, list[Column]] = {}
        for latent, (likeliest, is_part) in zip(latents, guesses, strict=True):
            if is_part:
                parts.setdefault(likeliest[0], []).append(samples_between(latent, n // 2, n))
        kinds = [shared_kinds(parts.get(i, [])) for i, feature in enumerate(features) if fires_in_both(feature, n)]
        merged = [
            n_told(latent, [features[i] for i in likeliest], n)
            for latent, (likeliest, _) in zip(latents, guesses, strict=True)
        ]
        telling = torch.tensor([n_features > 1 for n_features in merged if n_features > 0]).double()
        split, copied = torch.tensor(kinds, dtype=torch.float64).reshape(-1, 2).T
        return {
            "firing_splitting_rate": mean_score(split, id="firing_splitting_rate/v1"),
            "firing_duplicate_rate": mean_score(copied, id="firing_duplicate_rate/v1"),
            "firing_merging_rate": mean_score(telling, id="firing_merging_rate/v1"),
        }


def fires_in_both(column: Column, n_samples: int) -> bool:
    """Whether a column has an entry in either half."""
    return all(len(samples_between(column, *half).samples) > 0 for half in halves(n_samples))


def halves(n_samples: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The samples that choose and those that judge."""
    return (0, n_samples // 2), (n_samples // 2, n_samples)


def guess(features: list[Column], latents: list[Column], n_samples: int) -> list[Guess]:
    """What each latent is taken for, some at a time: a table of counts has at most 4 million entries."""
    on, fires = (matrix_of(indicators_of(columns), n_samples) for columns in (features, latents))
    guesses: list[Guess] = []
    at_once = max(1, BLOCK_ENTRIES // max(1, len(features)))
    for start in range(0, len(latents), at_once):
        block = fires[:, start : start + at_once]
        first, second = (fit(on[a:b], block[a:b]) for a, b in halves(n_samples))
        ranked = np.argsort(-first.f1, axis=0, kind="stable")[:LIKELIEST_FEATURES]
        for j, likeliest in enumerate(ranked.T):
            best = likeliest[0]
            is_part = all(
                bool(half.precision[best, j] >= PART_PRECISION and half.recall[best, j] >= PART_RECALL)
                for half in (first, second)
            )
            guesses.append(Guess([int(i) for i in likeliest if first.f1[i, j] > 0], is_part))
    return guesses


class Fit(NamedTuple):
    """Of "z > 0" as a detector, feature by latent."""

    precision: Float64[np.ndarray, "n_features n_latents"]
    """Above chance: 0 at the feature's base rate."""
    recall: Float64[np.ndarray, "n_features n_latents"]
    f1: Float64[np.ndarray, "n_features n_latents"]


def fit(on: Any, fires: Any) -> Fit:
    """Counts of samples, from two sparse 0/1 matrices; 0 where undefined."""
    both = np.asarray((on.T @ fires).todense())
    n_on, n_fires = (np.asarray(matrix.sum(axis=0)).ravel() for matrix in (on, fires))
    rate = (n_on / max(on.shape[0], 1))[:, None]
    precision = (both / n_fires.clip(min=1) - rate) / np.where(rate < 1, 1 - rate, np.inf)
    return Fit(precision, both / n_on.clip(min=1)[:, None], 2 * both / (n_on[:, None] + n_fires).clip(min=1))


def shared_kinds(parts: list[Column]) -> tuple[bool, bool]:
    """Whether any two parts of a feature are pieces of it, and whether any two are copies."""
    shares = [
        np.isin(a.samples, b.samples, assume_unique=True).sum() / min(len(a.samples), len(b.samples))
        for a, b in combinations(parts, 2)
    ]
    return any(share <= SAME_SAMPLES for share in shares), any(share > SAME_SAMPLES for share in shares)


def n_told(latent: Column, features: list[Column], n_samples: int) -> int:
    """0 if a latent does not tell when the likeliest feature is on, 2 if it also tells another one's firing, else 1.

    Of two features each must be told while the other is off. One of them is always the likeliest: a parent's latent
    tells every child of it while the others are off, but none while the parent is.
    """

    def tells(feature: Column, without: Int[np.ndarray, " n"]) -> bool:
        on = leave_out(feature, without)
        scores = halves(n_samples)[1]
        if len(samples_between(on, *scores).samples) < ENOUGH_FIRINGS:
            return False
        return levels_in(scores, leave_out(latent, without), on, without).auroc() > TELLS

    if not features or not tells(features[0], np.zeros(0, dtype=np.int64)):
        return 0
    likeliest = features[0]
    return 1 + any(tells(other, likeliest.samples) and tells(likeliest, other.samples) for other in features[1:])
