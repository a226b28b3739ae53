"""How much directions overlap: coherence, frame potential and dimensionality of a set of vectors."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.ground_truth.directions import welch_bound
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.matching import cosine_blocks, unit_rows
from sae_toolkit.metrics.metric import Metric
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


def off_diagonal_cosines(W: Float[Tensor, "n d"]) -> Float64[Tensor, "n 3"]:
    """For each row: the sum of |cos|, the sum of cos^2 and the largest |cos| with the *other* rows."""
    units = unit_rows(W)
    statistics = []
    for block, cosines in cosine_blocks(units, units):
        cosines[torch.arange(cosines.shape[0]), torch.arange(block.start, block.stop)] = 0.0
        sizes = cosines.abs()
        statistics.append(torch.stack([sizes.sum(1), cosines.square().sum(1), sizes.max(1).values], dim=1))
    return torch.cat(statistics) if statistics else torch.zeros(0, 3, dtype=torch.float64)


class Interference(Metric):
    """Overlap of the w alive decoder rows (alive: fired in what was seen); NaN where w < 2. n = w.

    `decoder_coherence`: mu = max over pairs of |cos|. `decoder_mean_abs_cosine`: c_dec, mean over pairs of |cos|.
    `decoder_mean_squared_cosine`: mean over pairs of cos^2, the off-diagonal energy of the normalised W W^T.
    `welch_gap`: (mu - Welch) / (1 - Welch), 0 for an optimal packing.
    `frame_potential_ratio`: sum over all i, j of cos^2 (frame potential) / its minimum max(w, w^2 / d); 1 if tight.
    `feature_dimensionality`: mean of D_i (see the function).
    Intervals of means: bootstrap over latents of each latent's mean over its pairs.
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
    if n < 2:
        sums = torch.full((n, 3), torch.nan, dtype=torch.float64)
        mu = welch = potential = float("nan")
    else:
        sums, welch = off_diagonal_cosines(W), welch_bound(n, d)
        mu = float(sums[:, 2].max())
        potential = float(sums[:, 1].sum() + (W.norm(dim=1) > 0).sum()) / max(n, n**2 / d)
    plain = {
        "decoder_coherence": mu,
        "welch_gap": (mu - welch) / (1 - welch),
        "frame_potential_ratio": potential,
    }
    units = {
        "decoder_mean_abs_cosine": sums[:, 0] / max(n - 1, 1),
        "decoder_mean_squared_cosine": sums[:, 1] / max(n - 1, 1),
        "feature_dimensionality": dimensionality_of_rows(W) if n else sums[:, 0],
    }
    return {name: Score(value=value, n=n, id=f"{name}/v1") for name, value in plain.items()} | {
        name: mean_score(values, id=f"{name}/v1") for name, values in units.items()
    }
