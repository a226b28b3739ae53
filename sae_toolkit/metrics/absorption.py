"""Whether latents of specific features swallow general ones (absorption), or mix features that co-occur (hedging).

Chanin et al. 2024 (arXiv 2409.14507) and 2025 (arXiv 2505.11756), here with the true features instead of probes.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import KeptSamples
from sae_toolkit.metrics.matching import ROUNDING, match_latents, unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import FiringCounts
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

ABSORPTION_SAMPLES = 50_000
WRITES_PARENT = 0.1
"""From this cosine with the parent's direction the child's latent stands in for the parent."""


class Absorption(Metric):
    """Over pairs (parent P, child c), where c fires only if P does; z_P, z_c: their matched latents (0 if unmatched).

    `absorption_rate`: P(z_P = 0, z_c > 0, cos(d_c, P) > .1 | P and c on), mean over pairs.
    `parent_recall_with_child`: P(z_P > 0 | P and c on); `parent_recall_without_child`: P(z_P > 0 | P on, c off).
    Over the first 50,000 samples; pairs whose condition never holds are left out. An untrained SAE absorbs nothing:
    read the rate beside the recalls. Row i of `pairs` is (P, c).
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        if not isinstance(source, KnownFeatures) or source.hierarchy_pairs is None:
            return []
        return [cls(source.directions, source.hierarchy_pairs)]

    def __init__(self, directions: Float[Tensor, "n_features d_in"], pairs: Int[Tensor, "n_pairs 2"]) -> None:
        self.directions, self.pairs = directions.detach(), pairs
        self.kept = KeptSamples(ABSORPTION_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        features, latents = self.kept.feature_columns(), self.kept.latent_columns()
        fires = [latent.samples[latent.values > 0] for latent in latents]
        decoder = sae.decoder_directions()
        alive = torch.tensor([len(samples) > 0 for samples in fires])
        paired = match_latents(self.directions, decoder, alive).latent.tolist()
        units, true_units = unit_rows(decoder), unit_rows(self.directions)
        nothing = np.zeros(0, dtype=np.int32)
        results = []
        for parent, child in self.pairs.tolist():
            parent_fires = fires[paired[parent]] if paired[parent] >= 0 else nothing
            child_fires = fires[paired[child]] if paired[child] >= 0 else nothing
            stands_in = paired[child] >= 0 and float(units[paired[child]] @ true_units[parent]) > WRITES_PARENT
            both = np.intersect1d(features[parent].samples, features[child].samples)
            alone = np.setdiff1d(features[parent].samples, both)
            missed = both[~np.isin(both, parent_fires)]
            absorbed = np.isin(missed, child_fires).sum() if stands_in else 0
            recalled = len(both) - len(missed), np.isin(alone, parent_fires).sum()
            results.append((share(absorbed, both), share(recalled[0], both), share(recalled[1], alone)))
        names = ("absorption_rate", "parent_recall_with_child", "parent_recall_without_child")
        columns = torch.tensor(results, dtype=torch.float64).reshape(-1, 3).T
        return {name: mean_score(column, id=f"{name}/v1") for name, column in zip(names, columns, strict=True)}


def share(count: int | np.integer, of: np.ndarray) -> float:
    """count / len(of), NaN where there is none."""
    return float(count / len(of)) if len(of) else float("nan")


class Hedging(Metric):
    """`hedging`: mean of cos(d_j, partner of the feature that latent j is matched with), signed, over matched latents.

    0: latents are pure; above 0: features that fire together are mixed into one latent; below 0: the partner is
    subtracted. `partners[i]` is the feature that co-occurs with (or excludes) feature i, -1 for none.
    """

    def __init__(self, directions: Float[Tensor, "n_features d_in"], partners: Int[Tensor, " n_features"]) -> None:
        self.directions, self.partners = directions.detach(), partners
        self.firing = FiringCounts()

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        del batch
        self.firing.update(output.sparse_latents())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        decoder = sae.decoder_directions()
        matching = match_latents(self.directions, decoder, self.firing.alive())
        taken = (matching.latent >= 0) & (self.partners >= 0) & (matching.cosine > ROUNDING)
        own = unit_rows(decoder)[matching.latent[taken]]
        cosines = (own * unit_rows(self.directions)[self.partners[taken]]).sum(dim=1)
        return {"hedging": mean_score(cosines, id="hedging/v1")}
