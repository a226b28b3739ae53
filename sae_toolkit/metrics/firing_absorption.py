"""Absorption (Chanin et al. 2024, arXiv 2409.14507) where it is known what fires but not along which direction."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.absorption import pair_shares
from sae_toolkit.metrics.bootstrap import mean_score, numpy_generator
from sae_toolkit.metrics.co_firing import Column, KeptSamples, indicators_of, matrix_of
from sae_toolkit.metrics.detection import samples_between
from sae_toolkit.metrics.firing_matching import NEVER, DetectorSearch, leave_out, positive
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

FIRING_ABSORPTION_SAMPLES = 50_000
ENOUGH_TOGETHER = 20
"""Samples of the second half with both on, from which a pair is judged."""


class FiringAbsorption(Metric):
    """Over pairs (parent P, child c), where c fires only if P does, in the first 50,000 samples.

    The parent's latent is the best detector of P on samples without c (so that c's own latent is not taken for it), the
    child's the best detector of c (`DetectorSearch`, first half). On the second half, with z_P, z_c their activations:
    `firing_absorption_rate`: P(z_P <= 0, z_c above its threshold | P and c on), mean over pairs.
    `firing_absorption_control`: the same with an unrelated feature for c, on samples with no child of P on; one for
    each pair, drawn with a fixed seed from those often on together with P: what bad detectors alone would score.
    `firing_parent_recall_with_child`: P(z_P > 0 | P and c on); `firing_parent_recall_without_child`: the same with P on
    and c off. An SAE whose latents know no parent absorbs nothing: read the rate beside the recalls. Pairs on together
    in fewer than 20 samples of the second half are left out. Row i of `pairs` is (P, c).
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        if source.feature_names is None or source.hierarchy_pairs is None or isinstance(source, KnownFeatures):
            return []
        return [cls(source.hierarchy_pairs)]

    def __init__(self, pairs: Int[Tensor, "n_pairs 2"]) -> None:
        self.pairs = pairs
        self.kept = KeptSamples(FIRING_ABSORPTION_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        features, n = self.kept.feature_columns(), self.kept.n_samples
        search = DetectorSearch(self.kept.latent_columns(), n)
        strangers = unrelated_partners(self.pairs, features, n)
        results = []
        for (parent, child), (stranger, children_on) in zip(self.pairs.tolist(), strangers, strict=True):
            found = judged(search, features[parent], features[child])
            control = judged(search, features[parent], stranger, children_on)
            results.append((*found, control[0]))
        names = (
            "firing_absorption_rate",
            "firing_parent_recall_with_child",
            "firing_parent_recall_without_child",
            "firing_absorption_control",
        )
        columns = torch.tensor(results, dtype=torch.float64).reshape(-1, len(names)).T
        return {name: mean_score(column, id=f"{name}/v1") for name, column in zip(names, columns, strict=True)}


def judged(
    search: DetectorSearch, parent: Column, child: Column, excluded: np.ndarray = NEVER.samples
) -> tuple[float, float, float]:
    """`pair_shares` of the detectors of a parent and a child, on the second half without excluded samples."""
    scores, left = (search.half, search.n_samples), leave_out(parent, excluded)
    parent_on, child_on = (samples_between(column, *scores).samples for column in (left, child))
    if len(np.intersect1d(parent_on, child_on)) < ENOUGH_TOGETHER:
        return float("nan"), float("nan"), float("nan")
    of_parent, of_child = search.best(parent, without=np.union1d(excluded, child.samples)), search.best(child)
    parent_fires = child_fires = NEVER.samples
    if of_parent.latent >= 0:
        parent_fires = positive(search.latents[of_parent.latent]).samples
    if of_child.latent >= 0:
        latent = search.latents[of_child.latent]
        child_fires = latent.samples[latent.values > of_child.threshold]
    return pair_shares(parent_on, child_on, parent_fires, child_fires)


def unrelated_partners(
    pairs: Int[Tensor, "n_pairs 2"], features: list[Column], n_samples: int
) -> list[tuple[Column, np.ndarray]]:
    """For each pair a feature of another family, and the samples with a child of the parent on.

    The feature is on often enough together with the parent alone; where there is none it is `NEVER`.
    """
    half = n_samples // 2, n_samples
    on = matrix_of(indicators_of([samples_between(feature, *half) for feature in features]), n_samples)
    families, rng = families_of(pairs, len(features)), numpy_generator(0, "unrelated partners")
    partners = []
    for parent in pairs[:, 0].tolist():
        children = pairs[pairs[:, 0] == parent, 1].tolist()
        children_on = np.unique(np.concatenate([features[child].samples for child in children]))
        together = np.asarray(on[leave_out(features[parent], children_on).samples].sum(axis=0)).ravel()
        strangers = np.flatnonzero((together >= ENOUGH_TOGETHER) & (families != families[parent]))
        partners.append((features[rng.choice(strangers)] if len(strangers) else NEVER, children_on))
    return partners


def families_of(pairs: Int[Tensor, "n_pairs 2"], n_features: int) -> Int[np.ndarray, " n_features"]:
    """Equal numbers for features that a chain of pairs connects."""
    from scipy.sparse import coo_matrix  # noqa: PLC0415  (slow import)
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    parents, children = pairs.numpy().T
    links = coo_matrix((np.ones(len(pairs)), (parents, children)), shape=(n_features, n_features))
    families: Int[np.ndarray, " n_features"] = connected_components(links, directed=False)[1]
    return families
