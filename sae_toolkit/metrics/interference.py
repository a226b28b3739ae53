"""How much directions overlap: coherence, frame potential and dimensionality of a set of vectors."""

from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.ground_truth.directions import welch_bound
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.matching import off_diagonal_cosines
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.packing_bounds import random_coherence, random_mean_abs_cosine, random_rms_cosine
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import FiringCounts
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput


def energy_along_rows(W: Float[Tensor, "*batch n d"]) -> Float64[Tensor, "*batch n"]:
    """sum_j (hat W_i . W_j)^2 for every row i, 0 where the norm is 0.

    It is hat W_i (W^T W) hat W_i^T, so that the [n n] table of products is never built.
    """
    W = W.detach().cpu().double()
    norms = W.norm(dim=-1, keepdim=True)
    units = W / torch.where(norms > 0, norms, 1.0)
    energy: Tensor = ((units @ (W.mT @ W)) * units).sum(dim=-1)
    return energy


def dimensionality_of_rows(W: Float[Tensor, "*batch n d"]) -> Float64[Tensor, "*batch n"]:
    """D_i = ||W_i||^2 / sum_j (hat W_i . W_j)^2, 0 where the norm is 0 (Elhage et al. 2022, arXiv 2209.10652).

    1: a dimension of its own, 1/2: shared with an antipode; sum D_i <= rank(W).
    """
    norms, total = W.detach().cpu().double().square().sum(dim=-1), energy_along_rows(W)
    return torch.where(norms > 0, norms / torch.where(norms > 0, total, 1.0), 0.0)


def interference_of_rows(W: Float[Tensor, "*batch n d"]) -> Float64[Tensor, "*batch n"]:
    """sum over j != i of (hat W_i . W_j)^2: how strongly the others are felt along direction i."""
    return (energy_along_rows(W) - W.detach().cpu().double().square().sum(dim=-1)).clamp_min(0)


class Interference(Metric):
    """Overlap of the w alive decoder rows (alive: fired in what was seen); NaN where w < 2. n = w.

    `decoder_coherence`: mu = max over pairs of |cos|. `decoder_mean_abs_cosine`: c_dec, mean over pairs of |cos|.
    `decoder_mean_squared_cosine`: mean over pairs of cos^2, the off-diagonal energy of the normalised W W^T.
    `welch_gap`: (mu - Welch) / (1 - Welch), 0 for an optimal packing.
    `frame_potential_ratio`: sum over all i, j of cos^2 (frame potential) / its minimum max(w, w^2 / d); 1 if tight.
    `feature_dimensionality`: mean of D_i (see the function).
    Intervals of means: bootstrap over latents of each latent's mean over its pairs. The floors of the first four are
    what w random directions reach: Welch's bound alone would make any dictionary look crowded.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        del source
        return [cls()]

    def __init__(self) -> None:
        self.firing = FiringCounts()

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        del batch
        self.firing.update(output.sparse_latents())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        return interference_scores(sae.decoder_directions().detach().cpu()[self.firing.alive()])


def interference_scores(W: Float[Tensor, "n d"]) -> dict[str, Score]:
    """All scores of `Interference` for the rows of W."""
    n, d = W.shape
    sums = pair_sums(W)
    potential = float(sums[:, 1].sum() + (W.norm(dim=1) > 0).sum()) / max(n, n**2 / d) if n > 1 else float("nan")
    dimensions = dimensionality_of_rows(W) if n else sums[:, 0]
    return overlap_scores(sums, d, prefix="decoder_", gap="welch_gap") | {
        "frame_potential_ratio": Score(value=potential, n=n, id="frame_potential_ratio/v1"),
        "feature_dimensionality": mean_score(dimensions, id="feature_dimensionality/v1"),
    }


def pair_sums(W: Float[Tensor, "n d"]) -> Float64[Tensor, "n 3"]:
    """`off_diagonal_cosines`, NaN where there is no pair."""
    return off_diagonal_cosines(W) if len(W) > 1 else torch.full((len(W), 3), torch.nan, dtype=torch.float64)


def overlap_scores(sums: Float64[Tensor, "n 3"], d: int, *, prefix: str, gap: str) -> dict[str, Score]:
    """Coherence, mean |cos|, mean cos^2 and Welch gap of n rows in d dimensions; floors: those of random directions."""
    n = len(sums)
    mu = chance = welch = float("nan")
    if n > 1:
        mu, chance, welch = float(sums[:, 2].max()), random_coherence(n, d), welch_bound(n, d)
    mean_abs = mean_score(sums[:, 0] / max(n - 1, 1), id=f"{prefix}mean_abs_cosine/v1")
    mean_squared = mean_score(sums[:, 1] / max(n - 1, 1), id=f"{prefix}mean_squared_cosine/v1")
    return {
        f"{prefix}coherence": Score(value=mu, floor=chance, n=n, id=f"{prefix}coherence/v1"),
        f"{prefix}mean_abs_cosine": replace(mean_abs, floor=random_mean_abs_cosine(d)),
        f"{prefix}mean_squared_cosine": replace(mean_squared, floor=random_rms_cosine(d) ** 2),
        gap: Score(value=(mu - welch) / (1 - welch), floor=(chance - welch) / (1 - welch), n=n, id=f"{gap}/v1"),
    }
