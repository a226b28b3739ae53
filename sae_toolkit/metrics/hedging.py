"""Whether latents mix features that fire together (Chanin et al. 2025, arXiv 2505.11756), with the true features."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column, KeptColumns, coefficients_of, indicators_of, matrix_of
from sae_toolkit.metrics.matching import ROUNDING, match_latents, unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import FiringCounts
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

HEDGING_SAMPLES = 20_000
FEATURES_AT_ONCE = 64
"""Features whose joint firings with all others are in memory at a time."""
SURE = 6.0
"""Standard deviations from independence; 2e-9 of independent pairs reach them, of 16,384 features one in a few runs."""


class Hedging(Metric):
    """`hedging`: mean of cos(d_j, partner of the feature that latent j is matched with), signed, over matched latents.

    0: latents are pure; above 0: features that fire together are mixed into one latent; below 0: the partner is
    subtracted. `partners[i]` is the feature that co-occurs with (or excludes) feature i, -1 for none; without
    `partners` they are found in the first 20,000 samples (see `partners_by_firing`). NaN where no feature has one.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(
        self, directions: Float[Tensor, "n_features d_in"], partners: Int[Tensor, " n_features"] | None = None
    ) -> None:
        self.directions, self.partners = directions.detach(), partners
        self.firing, self.kept = FiringCounts(), KeptColumns(HEDGING_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.firing.update(output.sparse_latents())
        if self.partners is None:
            self.kept.update(coefficients_of(batch))

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        decoder = sae.decoder_directions()
        matching = match_latents(self.directions, decoder, self.firing.alive())
        matched = ((matching.latent >= 0) & (matching.cosine > ROUNDING)).nonzero()[:, 0]
        if self.partners is None:
            partners = partners_by_firing(self.kept.columns(), self.kept.n_samples, matched)
        else:
            partners = self.partners[matched]
        has_one = partners >= 0
        own = unit_rows(decoder)[matching.latent[matched[has_one]]]
        cosines = (own * unit_rows(self.directions)[partners[has_one]]).sum(dim=1)
        return {"hedging": mean_score(cosines, id="hedging/v1")}


def partners_by_firing(
    features: list[Column], n_samples: int, asked: Int[Tensor, " n_asked"]
) -> Int[Tensor, " n_asked"]:
    """For some features the one whose firing depends on theirs most clearly, of either sign; -1 where none surely does.

    Clearness: the root of the Poisson deviance, 2 (o ln(o / e) - (o - e)), of o joint firings where independence
    expects e = n p_i p_j; at least 6. In a hierarchy that is the parent, or a parent's most telling child.
    """
    on: Any = matrix_of(indicators_of(features), n_samples).tocsc()
    counts = np.asarray(on.sum(axis=0)).ravel()
    partners = []
    for some in (chunk.numpy() for chunk in torch.split(asked, FEATURES_AT_ONCE)):
        together = (on.T @ on[:, some]).toarray()
        clearness = deviance_root(together, np.outer(counts, counts[some]) / max(n_samples, 1))
        clearness[some, np.arange(len(some))] = 0.0
        best = clearness.argmax(axis=0)
        partners.append(np.where(clearness[best, np.arange(len(some))] >= SURE, best, -1))
    return torch.from_numpy(np.concatenate(partners))


def deviance_root(
    observed: Float64[np.ndarray, "*shape"], expected: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """How many standard deviations a Poisson count lies from its mean, without sign; 0 where the mean is 0."""
    known = np.where(expected > 0, expected, 1.0)
    ratio = np.where(observed > 0, observed / known, 1.0)
    deviance = 2 * (observed * np.log(ratio) - (observed - expected))
    return np.where(expected > 0, np.sqrt(deviance.clip(min=0)), 0.0)
