"""How much of each site comes back where one dictionary reconstructs several: a crosscoder's explained variances."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.reconstruction import Reconstruction
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput


class SiteReconstruction(Metric):
    """`explained_variance_of_S`: that of the columns of site S alone, of activations that hold several sites.

    All sites together give the long activations of late layers the say.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.sites)] if len(source.sites) > 1 else []

    def __init__(self, sites: Mapping[str, int]) -> None:
        """`sites`: names and widths, in the order of the columns."""
        self.widths = list(sites.values())
        self.by_site = {site: Reconstruction() for site in sites}

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        read, rebuilt = (torch.split(x, self.widths, dim=-1) for x in (batch.wanted(), output.reconstruction))
        for reconstruction, wanted, found in zip(self.by_site.values(), read, rebuilt, strict=True):
            one = batch._replace(activations=wanted, targets=None)
            reconstruction.update(one, output._replace(reconstruction=found))

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        scores = {}
        for site, reconstruction in self.by_site.items():
            name = f"explained_variance_of_{site}"
            scores[name] = replace(reconstruction.compute(sae)["explained_variance"], id=f"{name}/v1")
        return scores
