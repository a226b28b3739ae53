"""How well each latent tells when, and how strongly, its true feature fires: activation-level recovery."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import divide, mean_score
from sae_toolkit.metrics.co_firing import (
    CoFiring,
    Column,
    KeptSamples,
    coefficients_of,
    select_entries,
    shared_samples,
)
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.score_units import ScoreUnits, feature_units
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

RANKED_SAMPLES = 50_000

NumpyVector = Float64[np.ndarray, " n"]


class Levels:
    """Sparse scores against a binary truth, as counts of positives and negatives at each distinct score, ascending.

    Zero scores are never stored one by one: they are one level, so ties among them cost nothing.
    """

    def __init__(self, latent: Column, feature: Column, n_samples: int) -> None:
        on = shared_samples(latent, feature)
        n_positive, n_on = len(feature.samples), on.sum()
        scores = np.append(latent.values, 0.0)
        positives = np.append(on, n_positive - n_on).astype(np.float64)
        negatives = np.append(~on, n_samples - n_positive - (len(on) - n_on)).astype(np.float64)
        order = scores.argsort()
        ascending = scores[order]
        starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
        self.scores = ascending[starts]
        self.positives: NumpyVector = np.add.reduceat(positives[order], starts)
        self.negatives: NumpyVector = np.add.reduceat(negatives[order], starts)

    def auroc(self) -> float:
        """P(score of a positive > score of a negative), ties counting half; NaN where one class is empty."""
        n_pairs = self.positives.sum() * self.negatives.sum()
        below = np.cumsum(self.negatives) - self.negatives
        won = (self.positives * (below + self.negatives / 2)).sum()
        return float(won / n_pairs) if n_pairs else float("nan")

    def f1_above(self) -> NumpyVector:
        """F1 of the rule "score >= this level", level by level; 0 where nothing is positive or predicted."""
        predicted = np.cumsum((self.positives + self.negatives)[::-1])[::-1]
        hits = np.cumsum(self.positives[::-1])[::-1]
        total = predicted + self.positives.sum()
        return divide(2 * hits, total, otherwise=0.0)

    def best_threshold(self) -> float:
        """The threshold on positive scores of the highest F1: halfway between the level and the one below it."""
        candidates = np.flatnonzero(self.scores > 0)
        if len(candidates) == 0 or self.positives.sum() == 0:
            return 0.0
        best = candidates[np.argmax(self.f1_above()[candidates])]
        return float((self.scores[best] + max(self.scores[best - 1], 0.0)) / 2)

    def f1_over(self, threshold: float) -> float:
        """F1 of the rule "score > threshold"; NaN where nothing is positive."""
        over = self.scores > threshold
        hits, predicted = self.positives[over].sum(), (self.positives + self.negatives)[over].sum()
        n_positive = self.positives.sum()
        return float(2 * hits / (predicted + n_positive)) if n_positive else float("nan")


def samples_between(column: Column, start: int, stop: int) -> Column:
    """The part of a column inside a range of samples."""
    inside = slice(*np.searchsorted(column.samples, [start, stop]))
    return Column(column.samples[inside], column.values[inside])


def tuned_f1(latent: Column, feature: Column, n_samples: int) -> float:
    """F1 on the second half of the samples, with the threshold that was best on the first half."""
    half = n_samples // 2
    first = Levels(samples_between(latent, 0, half), samples_between(feature, 0, half), half)
    second = Levels(
        samples_between(latent, half, n_samples), samples_between(feature, half, n_samples), n_samples - half
    )
    return second.f1_over(first.best_threshold())


def pearson(a: Column, b: Column, n_samples: int) -> float:
    """Correlation over all samples, zeros included; 0 where one side never changes."""
    covariance = a.values[shared_samples(a, b)] @ b.values[shared_samples(b, a)]
    covariance -= a.values.sum() * b.values.sum() / n_samples
    variances = [float((c.values**2).sum() - c.values.sum() ** 2 / n_samples) for c in (a, b)]
    product = max(variances[0], 0.0) * max(variances[1], 0.0)
    return float(covariance / product**0.5) if product > 0 else 0.0


def shuffled_matching(paired: Int[Tensor, " n_features"]) -> Int[Tensor, " n_features"]:
    """Each feature with the latent of the feature half the list away: no feature keeps its own."""
    return paired.roll(len(paired) // 2)


class LatentDetection(Metric):
    """Each feature against the latent it is paired with (Hungarian on cosines, alive latents, see `FeatureRecovery`).

    `activation_f1`: F1 of "z > 0" as detector of "coefficient != 0", over all samples seen.
    `activation_f1_shuffled`: the same with every feature given another feature's latent: what the matching adds is the
    difference, what remains is how often latents and features fire.
    `activation_f1_tuned`: F1 of "z > t", t >= 0 tuned per latent on the first half, scored on the second.
    `activation_auroc`: area under the ROC curve of z, tie-aware. `activation_pearson`: r of z and coefficient.
    The last three use the first 50,000 samples. Means over the features that fired there (AUROC: and were off there);
    features without a latent count 0 for F1 and Pearson and 1/2 for AUROC.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = directions.detach()
        self.counts = CoFiring()
        self.kept = KeptSamples(RANKED_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        features, latents = coefficients_of(batch), output.sparse_latents()
        self.counts.update(select_entries(features, features.values != 0), select_entries(latents, latents.values > 0))
        self.kept.update(batch, output)

    def f1(self, paired: Int[Tensor, " n_features"]) -> Float64[Tensor, " n_features"]:
        """2 TP / (2 TP + FP + FN) of each feature's latent (-1: none); NaN for features that never fired."""
        features = (paired >= 0).nonzero().squeeze(1)
        latents = paired[features]
        f1 = torch.zeros(len(paired), dtype=torch.float64)
        hits = self.counts.both[features, latents].double()
        f1[features] = 2 * hits / (self.counts.feature_on[features] + self.counts.latent_on[latents]).clamp_min(1)
        return torch.where(self.counts.feature_on > 0, f1, torch.nan)

    def pairs(self, sae: AbstractDictionary) -> Int[Tensor, " n_features"]:
        """The alive latent of each feature; -1 where there is none."""
        return match_latents(self.directions, sae.decoder_directions(), self.counts.latent_on > 0).latent

    def units(self, sae: AbstractDictionary) -> dict[str, ScoreUnits]:
        return {"activation_f1": feature_units(self.f1(self.pairs(sae)), "activation_f1/v1")}

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        features, latents, n = self.kept.feature_columns(), self.kept.latent_columns(), self.kept.n_samples
        paired = self.pairs(sae)
        tuned, auroc, correlation = (torch.full((len(features),), torch.nan, dtype=torch.float64) for _ in range(3))
        nothing = Column(np.zeros(0, dtype=np.int32), np.zeros(0))
        for i, (feature, j) in enumerate(zip(features, paired.tolist(), strict=True)):
            if len(feature.samples) == 0:
                continue
            latent = latents[j] if j >= 0 else nothing
            tuned[i] = tuned_f1(latent, feature, n)
            auroc[i] = Levels(latent, feature, n).auroc()
            correlation[i] = pearson(latent, feature, n)
        return {
            "activation_f1": mean_score(self.f1(paired), id="activation_f1/v1"),
            "activation_f1_shuffled": mean_score(self.f1(shuffled_matching(paired)), id="activation_f1_shuffled/v1"),
            "activation_f1_tuned": mean_score(tuned, id="activation_f1_tuned/v1"),
            "activation_auroc": mean_score(auroc, id="activation_auroc/v1"),
            "activation_pearson": mean_score(correlation, id="activation_pearson/v1"),
        }
