"""Which latents serve more than one true feature: direction and firing must both say so."""

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import KeptSamples
from sae_toolkit.metrics.detection import Levels
from sae_toolkit.metrics.matching import ROUNDING, cosine_blocks, unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

MERGING_SAMPLES = 50_000
LEANS = 0.4
"""|cos| from which a latent may be serving a feature."""
TELLS = 0.7
"""AUROC above which it does."""
MOST_FEATURES = 8
"""Features per latent whose AUROC is taken: those of highest |cos|."""


class Merging(Metric):
    """A latent serves a feature if |cos| >= .4 and z tells when the feature is on: AUROC > .7, first 50,000 samples.

    `merging_rate`: share of the alive latents that serve any feature which serve two or more. Cosine alone cannot tell
    merging from a coherent dictionary, in which true features lie within .4 of each other, and AUROC alone cannot tell
    it from features that fire together. Latents that serve no feature do not count: junk would dilute the rate.
    `serving_rate`: share of alive latents that serve a feature, to be read beside it. Looked at are the 8 features of
    highest |cos| of each latent. Interval: bootstrap over latents.
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = directions.detach()
        self.kept = KeptSamples(MERGING_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def served(self, sae: AbstractDictionary) -> dict[int, list[int]]:
        """The features that each alive latent serves, nearest first."""
        features, latents, n = self.kept.feature_columns(), self.kept.latent_columns(), self.kept.n_samples
        served: dict[int, list[int]] = {}
        for block, cosines in cosine_blocks(unit_rows(sae.decoder_directions()), unit_rows(self.directions)):
            near = cosines.abs().topk(min(MOST_FEATURES, len(features)), dim=1)
            for j, values, indices in zip(range(block.start, block.stop), near.values, near.indices, strict=True):
                if len(latents[j].samples) == 0:
                    continue
                leaning = indices[values >= LEANS - ROUNDING].tolist()
                served[j] = [i for i in leaning if Levels(latents[j], features[i], n).auroc() > TELLS]
        return served

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        counts = torch.tensor([len(features) for features in self.served(sae).values()], dtype=torch.float64)
        return {
            "merging_rate": mean_score((counts[counts > 0] > 1).double(), id="merging_rate/v1"),
            "serving_rate": mean_score((counts > 0).double(), id="serving_rate/v1"),
        }
