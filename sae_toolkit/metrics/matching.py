"""Which latent stands for which true feature: cosines between directions, and the best one-to-one assignment."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

BLOCK_ENTRIES = 2**22
"""Cosines computed at a time (float64: 32 MiB)."""


def unit_rows(rows: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """Rows scaled to length 1 in float64, on the CPU; zero rows stay zero, so that their cosines are 0, never NaN."""
    rows = rows.detach().cpu().double()
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)


def cosine_blocks(
    left: Float64[Tensor, "n_left d"], right: Float64[Tensor, "n_right d"]
) -> Iterator[tuple[slice, Float64[Tensor, "block n_right"]]]:
    """Products of unit rows, a few rows of `left` at a time: the full table may not fit in memory."""
    rows = max(1, BLOCK_ENTRIES // max(1, right.shape[0]))
    for start in range(0, left.shape[0], rows):
        block = slice(start, min(start + rows, left.shape[0]))
        yield block, left[block] @ right.T


def off_diagonal_cosines(W: Float[Tensor, "n d"]) -> Float64[Tensor, "n 3"]:
    """For each row: the sum of |cos|, the sum of cos^2 and the largest |cos| with the *other* rows."""
    units = unit_rows(W)
    statistics = []
    for block, cosines in cosine_blocks(units, units):
        cosines[torch.arange(cosines.shape[0]), torch.arange(block.start, block.stop)] = 0.0
        sizes = cosines.abs()
        statistics.append(torch.stack([sizes.sum(1), cosines.square().sum(1), sizes.max(1).values], dim=1))
    return torch.cat(statistics) if statistics else torch.zeros(0, 3, dtype=torch.float64)


@dataclass(frozen=True)
class Matching:
    """How the rows of a decoder lie relative to the true directions; C[i, j] = cos(feature i, latent j), signed.

    Dead latents write nothing, so they match nothing: their column of C counts as missing.
    """

    latent: Int[Tensor, " n_features"]
    """The latent paired with each feature by the assignment that maximises sum max(C, 0); -1 where there is none."""
    cosine: Float64[Tensor, " n_features"]
    """C of that pair, above 0; 0 where there is none."""
    best_for_feature: Float64[Tensor, " n_features"]
    """max over alive latents of C (0 if none is alive)."""
    n_close: Int[Tensor, " n_features"]
    """How many alive latents have C >= CLOSE."""
    best_for_latent: Float64[Tensor, " d_sae"]
    """max over features of C, for dead latents too."""
    best_feature: Int[Tensor, " d_sae"]
    """The feature at which that maximum lies."""
    alive: Bool[Tensor, " d_sae"]


CLOSE = 0.7
"""The cosine from which a latent counts as a version of a feature (splitting, duplicates)."""
ROUNDING = 1e-6
"""Thresholds are `>= t - ROUNDING`: rows built at a cosine of exactly t must all count."""


def match_latents(
    directions: Float[Tensor, "n_features d_in"],
    decoder: Float[Tensor, "d_sae d_decoder"],
    alive: Bool[Tensor, " d_sae"] | None = None,
) -> Matching:
    """All cosine statistics between true directions and decoder rows; without `alive`, every latent counts as alive.

    Needs 8 bytes per (feature, latent) for the assignment: 0.54 GB for 16,384 features and 4,096 latents.
    """
    if directions.shape[1] != decoder.shape[1]:
        raise ValueError(
            f"match_latents: features have {directions.shape[1]} dimensions, decoder rows {decoder.shape[1]}. "
            f"Compare a dictionary with the world whose activations it takes."
        )
    alive = torch.ones(len(decoder), dtype=torch.bool) if alive is None else alive.cpu()
    features, latents = unit_rows(directions), unit_rows(decoder)
    best_for_feature = torch.zeros(len(features), dtype=torch.float64)
    n_close = torch.zeros(len(features), dtype=torch.long)
    best_for_latent = torch.full((len(latents),), -torch.inf, dtype=torch.float64)
    best_feature = torch.zeros(len(latents), dtype=torch.long)
    for block, cosines in cosine_blocks(features, latents):
        values, rows = cosines.max(dim=0)
        better = values > best_for_latent
        best_for_latent = torch.where(better, values, best_for_latent)
        best_feature = torch.where(better, rows + block.start, best_feature)
        if alive.any():
            best_for_feature[block] = cosines[:, alive].max(dim=1).values
            n_close[block] = (cosines[:, alive] >= CLOSE - ROUNDING).sum(dim=1)
    latent, cosine = best_pairs(features, latents * alive[:, None])
    return Matching(latent, cosine, best_for_feature, n_close, best_for_latent, best_feature, alive)


def best_pairs(
    features: Float64[Tensor, "n_features d"], latents: Float64[Tensor, "d_sae d"]
) -> tuple[Int[Tensor, " n_features"], Float64[Tensor, " n_features"]]:
    """One-to-one pairs that maximise the sum of max(cosine, 0); pairs of cosine <= 0 are no pairs (latent -1)."""
    rows, columns, cosines = assign(features, latents)
    paired = cosines > 0
    latent = torch.full((len(features),), -1)
    cosine = torch.zeros(len(features), dtype=torch.float64)
    latent[rows[paired]], cosine[rows[paired]] = columns[paired], cosines[paired]
    return latent, cosine


def assign(
    features: Float64[Tensor, "n_features d"], latents: Float64[Tensor, "d_sae d"], *, signed: bool = True
) -> tuple[Int[Tensor, " n_pairs"], Int[Tensor, " n_pairs"], Float64[Tensor, " n_pairs"]]:
    """Hungarian assignment of min(n_features, d_sae) pairs: features, latents and their max(C, 0), or |C| if unsigned.

    SciPy copies a table that it has to transpose or negate, so it gets costs, one row for each of the fewer side.
    """
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  (slow import)

    few, many = (features, latents) if len(features) <= len(latents) else (latents, features)
    costs = np.empty((len(few), len(many)))
    for block, cosines in cosine_blocks(few, many):
        costs[block] = -(cosines.clamp_min(0) if signed else cosines.abs()).numpy()
    rows, columns = linear_sum_assignment(costs)
    cosine = torch.from_numpy(-costs[rows, columns])
    pairs = torch.from_numpy(rows), torch.from_numpy(columns)
    return (*pairs, cosine) if few is features else (pairs[1], pairs[0], cosine)
