"""How much a matched latent responds to features that are not its own: interference at the level of activations."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column, KeptSamples
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

LEAKAGE_SAMPLES = 50_000


class Leakage(Metric):
    """Over features that have a latent (Hungarian on cosines, alive latents), in the first 50,000 samples.

    `leakage_firing_rate`: mean of P(latent not 0 | its own feature off, at least one other on).
    `leakage_energy`: mean share of what the latent writes, sum z^2 ||d||^2, that it writes in such samples.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = directions.detach()
        self.kept = KeptSamples(LEAKAGE_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        features, latents = self.kept.feature_columns(), self.kept.latent_columns()
        alive = torch.tensor([len(latent.samples) > 0 for latent in latents])
        paired = match_latents(self.directions, sae.decoder_directions(), alive).latent
        anything_on = np.zeros(self.kept.n_samples, dtype=bool)
        for feature in features:
            anything_on[feature.samples] = True
        firing, energy = (torch.full((len(features),), torch.nan, dtype=torch.float64) for _ in range(2))
        for i, feature in enumerate(features):
            if paired[i] >= 0:
                firing[i], energy[i] = leakage(latents[paired[i]], feature, anything_on)
        return {
            "leakage_firing_rate": mean_score(firing, id="leakage_firing_rate/v1"),
            "leakage_energy": mean_score(energy, id="leakage_energy/v1"),
        }


def leakage(latent: Column, feature: Column, anything_on: np.ndarray) -> tuple[float, float]:
    """Firing rate among, and share of z^2 in, the samples in which only other features are on."""
    others_only = anything_on.copy()
    others_only[feature.samples] = False
    leaked = others_only[latent.samples]
    n_others, power = others_only.sum(), (latent.values**2).sum()
    rate = leaked.sum() / n_others if n_others else float("nan")
    return float(rate), float((latent.values[leaked] ** 2).sum() / power)
