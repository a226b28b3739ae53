"""The shares of a dimension at which feature dimensionalities cluster (Elhage et al. 2022, arXiv 2209.10652).

Section "The Geometry of Superposition": each is n_hidden / n_features of a uniform polytope.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Polytope(NamedTuple):
    """Corners of equal share; a tegum product (two pairs make a square) keeps the shares of its factors."""

    name: str
    dimensionality: float


POLYTOPES = (
    Polytope("dedicated", 1.0),
    Polytope("tetrahedron", 3 / 4),
    Polytope("triangle", 2 / 3),
    Polytope("digon", 1 / 2),
    Polytope("pentagon", 2 / 5),
    Polytope("square antiprism", 3 / 8),
    Polytope("not learned", 0.0),
)
NONE = -1
"""The number of what is near no polytope."""


def nearest_polytope(D: Float[Tensor, "*shape"], *, tolerance: float = 0.02) -> Int[Tensor, "*shape"]:
    """The index in `POLYTOPES` of the nearest dimensionality, or `NONE` where it is further away than `tolerance`."""
    levels = torch.tensor([polytope.dimensionality for polytope in POLYTOPES], dtype=torch.float64)
    distances = (D.detach().cpu().double().unsqueeze(-1) - levels).abs()
    smallest, index = distances.min(dim=-1)
    return torch.where(smallest <= tolerance, index, NONE)


def polytope_shares(
    D: Float[Tensor, "*shape"], counted: Bool[Tensor, "*shape"], *, tolerance: float = 0.02
) -> dict[str, float]:
    """Of the counted features (the represented ones, say), the share near each polytope, and near "none"."""
    found = nearest_polytope(D, tolerance=tolerance)[counted.cpu()]
    if not len(found):
        raise ValueError("polytope_shares: no feature is counted. Give a mask with at least one feature in it.")
    names = [polytope.name for polytope in POLYTOPES]
    return {name: float((found == index).double().mean()) for index, name in [*enumerate(names), (NONE, "none")]}
