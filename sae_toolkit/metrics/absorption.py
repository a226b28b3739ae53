"""Whether latents of specific features swallow general ones (Chanin et al. 2024, arXiv 2409.14507).

Here with the true features instead of probes.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import KeptSamples
from sae_toolkit.metrics.matching import match_latents, unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
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
            on = features[parent].samples, features[child].samples
            results.append(pair_shares(*on, parent_fires, child_fires if stands_in else nothing))
        names = ("absorption_rate", "parent_recall_with_child", "parent_recall_without_child")
        columns = torch.tensor(results, dtype=torch.float64).reshape(-1, 3).T
        return {name: mean_score(column, id=f"{name}/v1") for name, column in zip(names, columns, strict=True)}


def pair_shares(
    parent_on: np.ndarray, child_on: np.ndarray, parent_fires: np.ndarray, child_fires: np.ndarray
) -> tuple[float, float, float]:
    """Of the samples with both on: the share in which only the child's latent fires, and in which the parent's does.

    Third: in which share of the samples with the parent alone its latent fires. NaN where there is no such sample.
    """
    both = np.intersect1d(parent_on, child_on)
    alone = np.setdiff1d(parent_on, both)
    missed = both[~np.isin(both, parent_fires)]
    absorbed, recalled = np.isin(missed, child_fires).sum(), np.isin(alone, parent_fires).sum()
    return share(absorbed, both), share(len(both) - len(missed), both), share(recalled, alone)


def share(count: int | np.integer, of: np.ndarray) -> float:
    """count / len(of), NaN where there is none."""
    return float(count / len(of)) if len(of) else float("nan")
