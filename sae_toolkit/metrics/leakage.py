"""How much a matched latent responds to features that are not its own: interference at the level of activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import divide, mean_score
from sae_toolkit.metrics.co_firing import Column, KeptSamples, indicators_of, matrix_of, shared_samples
from sae_toolkit.metrics.matching import Matching, match_latents
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

LEAKAGE_SAMPLES = 50_000
MATRIX_LATENTS = 256
"""Columns of the leakage matrix: the matched latents of highest cosine."""
PAIRS_AT_ONCE = 64
"""Latents whose responses to all features are in memory at a time, beyond the leakage matrix."""
ENOUGH_SAMPLES = 30
"""Samples with another feature on and the own one off, from which that feature may be a latent's strongest leak."""


@dataclass(frozen=True)
class LeakageMatrix:
    """What matched latents do while their own feature is off, by the feature that is on."""

    leaked: Float64[np.ndarray, "n_features n_kept"]
    """Mean activation of each latent over samples with this feature on and its own off; NaN where there is none."""
    own: Float64[np.ndarray, " n_kept"]
    """Mean activation of each latent over samples with its own feature on."""
    latents: Int[np.ndarray, " n_kept"]
    own_features: Int[np.ndarray, " n_kept"]

    def shares(self) -> Float64[np.ndarray, "n_features n_kept"]:
        """leaked / (leaked + own): 0 no response, 1/2 as strong as to the own feature, 1 none to the own one."""
        return self.leaked / np.where(self.leaked + self.own > 0, self.leaked + self.own, np.nan)


class Leakage(Metric):
    """Over features that have a latent (Hungarian on cosines, alive latents), in the first 50,000 samples.

    `leakage_firing_rate`: mean of P(latent not 0 | its own feature off, at least one other on).
    `leakage_firing_ratio`: mean of that rate / P(latent not 0): 1 if it fires whatever is on, 0 if it is pure.
    `leakage_energy`: mean share of what the latent writes, sum z^2 ||d||^2, that it writes in such samples.
    `leakage_strongest`: mean of the largest share in the latent's column of the leakage matrix, over features with 30
    samples or more behind their entry: how much it responds to the one other feature it confuses most with its own.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = directions.detach()
        self.kept = KeptSamples(LEAKAGE_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def matching(self, sae: AbstractDictionary, latents: list[Column]) -> Matching:
        """Features and the latents that fired."""
        alive = torch.tensor([len(latent.samples) > 0 for latent in latents])
        return match_latents(self.directions, sae.decoder_directions(), alive)

    def matrix(self, sae: AbstractDictionary) -> LeakageMatrix:
        """Leakage feature by feature, of the 256 matched latents of highest cosine, in the order of their features."""
        features, latents = self.kept.feature_columns(), self.kept.latent_columns()
        matching = self.matching(sae, latents)
        matched = (matching.latent >= 0).nonzero()[:, 0]
        best = matching.cosine[matched].argsort(descending=True, stable=True)[:MATRIX_LATENTS]
        own_features = matched[best].sort().values.numpy()
        chosen = matching.latent.numpy()[own_features]
        on = FeaturesOn(features, self.kept.n_samples)
        pairs = [(latents[j], features[i]) for i, j in zip(own_features, chosen, strict=True)]
        return LeakageMatrix(on.leaked(pairs)[0], own_means(pairs), chosen, own_features)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        features, latents, n = self.kept.feature_columns(), self.kept.latent_columns(), self.kept.n_samples
        latent_of = self.matching(sae, latents).latent
        matched = (latent_of >= 0).nonzero()[:, 0]
        pairs = [(latents[int(latent_of[i])], features[i]) for i in matched.tolist()]
        on = FeaturesOn(features, n)
        names = ("leakage_firing_rate", "leakage_firing_ratio", "leakage_energy", "leakage_strongest")
        found = torch.full((len(features), len(names)), torch.nan, dtype=torch.float64)
        strongest = strongest_shares(pairs, on)
        for i, (latent, feature), share in zip(matched.tolist(), pairs, strongest.tolist(), strict=True):
            rate, energy = leakage(latent, feature, on.anything)
            found[i] = torch.tensor([rate, rate * n / len(latent.samples), energy, share])
        return {name: mean_score(values, id=f"{name}/v1") for name, values in zip(names, found.T, strict=True)}


def leakage(latent: Column, feature: Column, anything_on: np.ndarray) -> tuple[float, float]:
    """Firing rate among, and share of z^2 in, the samples in which only other features are on."""
    others_only = anything_on.copy()
    others_only[feature.samples] = False
    leaked = others_only[latent.samples]
    n_others, power = others_only.sum(), (latent.values**2).sum()
    rate = leaked.sum() / n_others if n_others else float("nan")
    return float(rate), float((latent.values[leaked] ** 2).sum() / power)


Pair = tuple[Column, Column]
"""A latent and its own feature."""


class FeaturesOn:
    """Which features are on in each sample."""

    def __init__(self, features: list[Column], n_samples: int) -> None:
        self.indicators: Any = matrix_of(indicators_of(features), n_samples)
        self.counts = np.asarray(self.indicators.sum(axis=0)).ravel()
        self.anything = np.diff(self.indicators.indptr) > 0

    def leaked(
        self, pairs: Sequence[Pair]
    ) -> tuple[Float64[np.ndarray, "n_features n_pairs"], Float64[np.ndarray, "n_features n_pairs"]]:
        """Mean activation of latents over samples with each feature on and their own off, and how many these are."""
        total = self.sums([others_alone(latent, own) for latent, own in pairs])
        n = self.counts[:, None] - self.sums(indicators_of([own for _, own in pairs]))
        return divide(total, n, otherwise=np.nan), n

    def sums(self, columns: Sequence[Column]) -> Float64[np.ndarray, "n_features n_columns"]:
        """Sum of each column over the samples with each feature on."""
        table: np.ndarray = (self.indicators.T @ matrix_of(columns, self.indicators.shape[0])).toarray()
        return table


def others_alone(latent: Column, own: Column) -> Column:
    """A latent where its own feature is off."""
    alone = ~shared_samples(latent, own)
    return Column(latent.samples[alone], latent.values[alone])


def own_means(pairs: Sequence[Pair]) -> Float64[np.ndarray, " n_pairs"]:
    """Mean activation of latents over samples with their own feature on; 0 where there is none."""
    sums = [latent.values[shared_samples(latent, own)].sum() / max(len(own.samples), 1) for latent, own in pairs]
    return np.array(sums, dtype=np.float64)


def strongest_shares(pairs: Sequence[Pair], on: FeaturesOn) -> Float64[np.ndarray, " n_pairs"]:
    """The largest share that another feature has of each latent's response; NaN where none is on often enough."""
    shares = np.full(len(pairs), np.nan)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        some = pairs[start : start + PAIRS_AT_ONCE]
        leaked, n = on.leaked(some)
        judged = np.where(n >= ENOUGH_SAMPLES, leaked, -np.inf).max(axis=0, initial=-np.inf)
        strongest, own = np.where(judged > -np.inf, judged.clip(min=0.0), np.nan), own_means(some)
        response = (strongest + own).clip(min=0.0)
        shares[start : start + PAIRS_AT_ONCE] = divide(strongest, response, otherwise=np.nan)
    return shares
