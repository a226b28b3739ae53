"""Which true feature each latent stands for: the one whose firing it tells best, chosen and judged on other samples."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sae_toolkit.analysis.latent_record import LatentScore, TrueFeature
from sae_toolkit.metrics.bootstrap import divide
from sae_toolkit.metrics.co_firing import KeptSamples, matrix_of
from sae_toolkit.metrics.firing_matching import positive
from sae_toolkit.metrics.kept_latents import indicators
from sae_toolkit.metrics.label_information import LabelCounts, count_labels, largest_entries
from sae_toolkit.metrics.matching import unit_rows

PerLatent = Float64[np.ndarray, " n_latents"]


class Directions(NamedTuple):
    """What the latents write and where the features point, rows of any length."""

    latents: Float[Tensor, "n_latents d_in"]
    features: Float[Tensor, "n_features d_in"]

    def cosine(self, latent: int, feature: int) -> float:
        """Of one latent with one feature; 0 for a latent that writes nothing."""
        pair = unit_rows(torch.stack([self.latents[latent].cpu(), self.features[feature].cpu()]))
        return float(pair[0] @ pair[1])


def match_features(
    kept: KeptSamples, names: Sequence[str], directions: Directions | None
) -> tuple[list[TrueFeature | None], dict[str, list[LatentScore]]]:
    """The feature of every latent in `kept`, and scores of the match; None, and NaN, where there is none.

    F1 = 2 both / (fires + on) of "z > 0" against "coefficient != 0". The feature of largest F1 in the first half of the
    kept samples is taken; F1 is that of the second half, NaN where latent and feature are both silent there. The floor
    of `feature_f1` is what firing as often at random gives, 2pq / (p + q) at rates p and q; of `feature_cosine`, 0.
    """
    n = kept.n_samples
    latents = matrix_of([positive(column) for column in kept.latent_columns()], n)
    features = matrix_of(kept.feature_columns(), n)
    first, second = (
        count_labels(indicators(latents[half]).T.tocsr(), indicators(features[half]))
        for half in (slice(0, n // 2), slice(n // 2, n))
    )
    matched = best_labels(first)
    f1, floor = f1_of(second, matched), chance_f1(second, matched)
    found: list[TrueFeature | None] = [None] * len(f1)
    scores = {"feature_f1": [LatentScore(value=float("nan"))] * len(f1)}
    if directions is not None:
        scores["feature_cosine"] = [LatentScore(value=float("nan"))] * len(f1)
    for latent in np.flatnonzero(matched >= 0).tolist():
        index = int(matched[latent])
        cosine = None if directions is None else directions.cosine(latent, index)
        found[latent] = TrueFeature(index=index, name=names[index], cosine=cosine, f1=float(f1[latent]))
        scores["feature_f1"][latent] = LatentScore(value=float(f1[latent]), floor=float(floor[latent]))
        if cosine is not None:
            scores["feature_cosine"][latent] = LatentScore(value=cosine, floor=0.0)
    return found, scores


def best_labels(counts: LabelCounts) -> Int[np.ndarray, " n_latents"]:
    """The class of largest F1 with each latent, the first of equals; -1 where none holds when it fires."""
    f1 = counts.both.astype(np.float64)
    rows = np.repeat(np.arange(f1.shape[0]), np.diff(f1.indptr))
    f1.data = 2 * f1.data / (counts.fires[rows] + counts.labels[f1.indices])
    return np.where(np.diff(f1.indptr) > 0, largest_entries(f1), -1)


def f1_of(counts: LabelCounts, choice: Int[np.ndarray, " n_latents"]) -> PerLatent:
    """F1 of each latent with its own class; NaN where neither ever holds."""
    return divide(2 * counts.at(choice), counts.fires + counts.labels[choice], otherwise=np.nan)


def chance_f1(counts: LabelCounts, choice: Int[np.ndarray, " n_latents"]) -> PerLatent:
    """F1 of an indicator as frequent as the latent's firing and independent of its class."""
    return divide(
        2 * counts.fires * counts.labels[choice] / counts.n, counts.fires + counts.labels[choice], otherwise=np.nan
    )
