"""Which true features the decoder has found: cosine-level recovery, counted over all true features."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import MIN_UNITS, divide, mean_score, percentile_interval, resampled_sums
from sae_toolkit.metrics.matching import CLOSE, ROUNDING, Matching, match_latents
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.score_units import ScoreUnits, feature_units
from sae_toolkit.metrics.sparsity import FiringCounts
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

THRESHOLDS = (0.8, 0.9, 0.95)


def reaches(cosines: Float[Tensor, " n"], threshold: float) -> Float[Tensor, " n"]:
    """1 where the cosine is at least the threshold (up to rounding), else 0."""
    return (cosines >= threshold - ROUNDING).double()


def duplicates(matching: Matching) -> Bool[Tensor, " d_sae"]:
    """Latents (alive, C >= 0.7 with their best feature) that are not the closest such latent of that feature."""
    close = matching.alive & (matching.best_for_latent >= CLOSE - ROUNDING)
    latents = close.nonzero().squeeze(1)
    cosine, feature = matching.best_for_latent[latents], matching.best_feature[latents]
    n_features, n_latents = len(matching.latent), len(close)
    best = torch.zeros(n_features, dtype=torch.float64).scatter_reduce(0, feature, cosine, "amax")
    tied = cosine == best[feature]
    first = torch.full((n_features,), n_latents).scatter_reduce(0, feature[tied], latents[tied], "amin")
    duplicate = torch.zeros_like(close)
    duplicate[latents[latents != first[feature]]] = True
    return duplicate


def recovery_scores(matching: Matching) -> dict[str, Score]:
    """All scores of `FeatureRecovery` from the cosines alone."""
    alive = matching.alive
    scores = {
        "mean_matched_cosine": mean_score(matching.cosine, id="mean_matched_cosine/v1"),
        "mmcs_feature_to_latent": mean_score(matching.best_for_feature, id="mmcs_feature_to_latent/v1"),
        "mmcs_latent_to_feature": mean_score(matching.best_for_latent[alive], id="mmcs_latent_to_feature/v1"),
    }
    for t in THRESHOLDS:
        unique = reaches(matching.cosine, t)
        precise = reaches(matching.best_for_latent[alive], t)
        scores[f"recall_at_{t}"] = mean_score(unique, id=f"unique_recall_at_{t}/v1")
        scores[f"any_recall_at_{t}"] = mean_score(reaches(matching.best_for_feature, t), id=f"any_recall_at_{t}/v1")
        scores[f"precision_at_{t}"] = mean_score(precise, id=f"precision_at_{t}/v1")
        scores[f"f1_at_{t}"] = harmonic_score(unique, precise, id=f"f1_at_{t}/v1")
    scores["duplicate_fraction"] = mean_score(duplicates(matching)[alive].double(), id="duplicate_fraction/v1")
    scores["splitting_rate"] = mean_score((matching.n_close >= 2).double(), id="splitting_rate/v1")
    scores["missed_rate"] = mean_score((matching.n_close == 0).double(), id="missed_rate/v1")
    return scores


def harmonic_score(recalled: Float[Tensor, " n_features"], precise: Float[Tensor, " n_alive"], *, id: str) -> Score:
    """2PR / (P + R), 0 where both are 0; features and latents are resampled independently; n is the features'."""
    if len(precise) == 0:
        return Score(value=0.0, n=len(recalled), id=id)
    value = harmonic_mean(np.array([recalled.mean()]), np.array([precise.mean()]))[0]
    low, high = None, None
    if min(len(recalled), len(precise)) >= MIN_UNITS:
        recalls = resampled_sums(recalled[:, None].numpy())[:, 0] / len(recalled)
        precisions = resampled_sums(precise[:, None].numpy(), seed=1)[:, 0] / len(precise)
        low, high = percentile_interval(harmonic_mean(recalls, precisions))
    return Score(value=float(value), low=low, high=high, n=len(recalled), id=id)


def harmonic_mean(a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """2ab / (a + b), 0 where both are 0."""
    return divide(2 * a * b, a + b, otherwise=0.0)


class FeatureRecovery(Metric):
    """C[i, j] = cos(feature i, decoder row j), signed: a negated latent recovers nothing.

    `mean_matched_cosine`: Hungarian matching on max(C, 0), sum over pairs / n_features (unmatched features count 0).
    `mmcs_feature_to_latent`: mean_i max_j C. `mmcs_latent_to_feature`: mean_j max_i C.
    `recall_at_t`: share of features whose *matched* pair has C >= t, so that duplicates gain nothing.
    `any_recall_at_t`: the same with max_j C. `precision_at_t`: share of latents with max_i C >= t.
    `f1_at_t`: harmonic mean of `recall_at_t` and `precision_at_t`.
    `duplicate_fraction`: share of latents with max_i C >= .7 that are not the closest latent of that feature.
    `splitting_rate`, `missed_rate`: share of features with at least two latents, and with none, at C >= .7.

    Only latents that fired in what was seen take part: dead ones are left out where the mean is over latents, and are
    misses where it is over features. Intervals: bootstrap over those units.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = directions.detach()
        self.firing = FiringCounts()

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        del batch
        self.firing.update(output.sparse_latents())

    def matching(self, sae: AbstractDictionary) -> Matching:
        """The cosines behind the scores, for curves over all thresholds and match matrices."""
        return match_latents(self.directions, sae.decoder_directions(), self.firing.alive())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        return recovery_scores(self.matching(sae))

    def units(self, sae: AbstractDictionary) -> dict[str, ScoreUnits]:
        matching = self.matching(sae)
        values = {
            "mean_matched_cosine": feature_units(matching.cosine, "mean_matched_cosine/v1"),
            "mmcs_feature_to_latent": feature_units(matching.best_for_feature, "mmcs_feature_to_latent/v1"),
        }
        for t in THRESHOLDS:
            values[f"recall_at_{t}"] = feature_units(reaches(matching.cosine, t), f"unique_recall_at_{t}/v1")
        return values
