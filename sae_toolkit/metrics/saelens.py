"""SAELens' synthetic metrics by their own definitions (SynthSAEBench, arXiv 2602.14687), for comparison only.

Blind spots: a negated perfect dictionary, one perfect latent alone, and a perfect dictionary with any amount of junk
all score mcc = 1. `FeatureRecovery` does not share them.
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import CoFiring, coefficients_of, select_entries
from sae_toolkit.metrics.matching import assign, cosine_blocks
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

SMALLEST_NORM = 1e-8


class SAELensRecovery(Metric):
    """C[i, j] = |cos(decoder row i, feature j)|; dead latents take part everywhere.

    `saelens_mcc`: mean C over a Hungarian matching of min(n_features, d_sae) pairs.
    `saelens_uniqueness`: number of distinct argmax_j C[i, j] / d_sae.
    `saelens_precision`, `_recall`, `_f1`: latent i as detector ("z != 0") of feature argmax_j C[i, j]
    ("coefficient > 0"); 0 where undefined; plain mean over latents.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = clamped_unit_rows(directions)
        self.counts = CoFiring()

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        features, latents = coefficients_of(batch), output.sparse_latents()
        self.counts.update(select_entries(features, features.values > 0), select_entries(latents, latents.values != 0))

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        decoder = clamped_unit_rows(sae.decoder_directions())
        if self.counts.n_samples == 0:
            raise ValueError("SAELensRecovery: no sample seen, so there is nothing to score. Call `update` first.")
        _, _, matched = assign(self.directions, decoder, signed=False)
        feature = nearest_features(decoder, self.directions)
        hits = self.counts.both[feature, torch.arange(len(decoder))].double()
        precision = hits / self.counts.latent_on.clamp_min(1)
        recall = hits / self.counts.feature_on[feature].clamp_min(1)
        f1 = 2 * precision * recall / torch.where(hits > 0, precision + recall, 1.0)
        uniqueness = int((torch.bincount(feature) > 0).sum()) / len(decoder)
        return {
            "saelens_mcc": mean_score(matched, id="saelens_mcc/v1"),
            "saelens_uniqueness": Score(value=uniqueness, n=len(decoder), id="saelens_uniqueness/v1"),
            "saelens_precision": mean_score(precision, id="saelens_precision/v1"),
            "saelens_recall": mean_score(recall, id="saelens_recall/v1"),
            "saelens_f1": mean_score(f1, id="saelens_f1/v1"),
        }


def clamped_unit_rows(rows: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """Rows over max(norm, 1e-8)."""
    rows = rows.detach().cpu().double()
    length: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / length.clamp_min(SMALLEST_NORM)


def nearest_features(
    decoder: Float64[Tensor, "d_sae d"], directions: Float64[Tensor, "n_features d"]
) -> Int[Tensor, " d_sae"]:
    """argmax over features of |cos|, for each latent."""
    return torch.cat([cosines.abs().argmax(dim=1) for _, cosines in cosine_blocks(decoder, directions)])
