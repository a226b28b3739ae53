"""Which polytopes the represented features of a model form, told from their angles (Elhage et al. 2022, 2209.10652).

Section "The Geometry of Superposition": features fall into groups that are orthogonal to each other (tegum factors),
and within a group into the corners of a small polytope. A square, and an octahedron, is two, or three, digons.
"""

from collections import Counter
from collections.abc import Sequence
from math import cos, pi, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.ground_truth.toy_model import REPRESENTED
from sae_toolkit.metrics.geometry import feature_norms
from sae_toolkit.metrics.matching import unit_rows

CONNECTED = 0.25
"""|cos| from which two features share a group: below every first neighbour of the polytopes (1/3 in a tetrahedron)."""
TOLERANCE = 0.2
"""Largest difference to a polytope's cosines, in order of size: a pentagon whose corners are off by 10 degrees."""
DEGREES = 10.0
"""By how much an angle in the plane may differ from that of a regular polygon."""


class FeatureGroup(NamedTuple):
    """Features that interfere with each other, directly or through others."""

    shape: str
    """dedicated, digon, triangle, tetrahedron, pentagon, square antiprism, other."""
    features: tuple[int, ...]


def antiprism_cosines() -> list[float]:
    """Two squares at heights +-sqrt(1/3), turned by 45 degrees: the height at which the frame is tight (D = 3/8)."""
    height, radius = 1 / 3, 2 / 3  # squared
    within = [*[height] * 8, *[height - radius] * 4]
    across = [*[radius * sqrt(0.5) - height] * 8, *[-radius * sqrt(0.5) - height] * 8]
    return within + across


SHAPES: dict[str, list[float]] = {
    "dedicated": [],
    "digon": [-1.0],
    "triangle": [-1 / 2] * 3,
    "tetrahedron": [-1 / 3] * 6,
    "pentagon": [cos(2 * pi / 5)] * 5 + [cos(4 * pi / 5)] * 5,
    "square antiprism": antiprism_cosines(),
}
"""The cosines of all pairs of corners."""


def feature_groups(
    W: Float[Tensor, "n_hidden n_features"],
    *,
    threshold: float = REPRESENTED,
    connected: float = CONNECTED,
    tolerance: float = TOLERANCE,
) -> list[FeatureGroup]:
    """The groups of one model's represented features, in the order of their first feature."""
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415  (slow import)

    kept = (feature_norms(W) > threshold).nonzero().squeeze(1)
    units = unit_rows(W.mT[kept.to(W.device)])
    cosines = units @ units.T
    n_groups, numbers = connected_components((cosines.abs() > connected).numpy(), directed=False)
    groups = torch.from_numpy(numbers)
    members = [(groups == number).nonzero().squeeze(1) for number in range(n_groups)]
    found = [FeatureGroup(shape_of(cosines[m][:, m], tolerance), tuple(kept[m].tolist())) for m in members]
    return sorted(found, key=lambda group: group.features)


def shape_of(cosines: Float64[Tensor, "n n"], tolerance: float) -> str:
    """The polytope with these cosines between its corners."""
    above_diagonal = torch.ones_like(cosines, dtype=torch.bool).triu(diagonal=1)
    pairs = cosines[above_diagonal].sort().values
    for name, expected in SHAPES.items():
        same_size = len(expected) == len(pairs)
        if same_size and bool(((pairs - torch.tensor(sorted(expected))).abs() <= tolerance).all()):
            return name
    return "other"


def geometry_class(W: Float[Tensor, "instances n_hidden n_features"], *, threshold: float = REPRESENTED) -> list[str]:
    """Each model in words, most frequent group first: "5 dedicated", "2 digon + 1 dedicated", "1 pentagon"."""
    words = []
    for model in W:
        counts = Counter(group.shape for group in feature_groups(model, threshold=threshold))
        words.append(" + ".join(f"{n} {shape}" for shape, n in counts.most_common()) or "nothing represented")
    return words


def arrangement_in_plane(
    W: Float[Tensor, "instances two n_features"], *, threshold: float = REPRESENTED, degrees: float = DEGREES
) -> list[str]:
    """ "2 orthogonal", "4 antipodal" (two pairs at right angles), "5 pentagon" or "other" for models of 2 dimensions.

    The gaps between neighbouring represented directions must all be within `degrees` of the regular ones.
    """
    if W.shape[1] != 2:
        raise ValueError(f"arrangement_in_plane: n_hidden={W.shape[1]} given, but a plane has 2. Use geometry_class.")
    regular = {2: ("2 orthogonal", [90.0, 270.0]), 4: ("4 antipodal", [90.0] * 4), 5: ("5 pentagon", [72.0] * 5)}
    found = []
    for model, kept in zip(W.detach().cpu().double(), feature_norms(W) > threshold, strict=True):
        name, gaps = regular.get(int(kept.sum()), ("other", []))
        off = (gaps_in_degrees(model[:, kept]) - torch.tensor(gaps, dtype=torch.float64)).abs() if gaps else None
        found.append(name if off is not None and bool((off <= degrees).all()) else "other")
    return found


def arrangement_shares(arrangements: Sequence[str]) -> dict[str, float]:
    """Shares of "orthogonal", "antipodal", "pentagon" and "other" among models' `arrangement_in_plane`."""
    if not arrangements:
        raise ValueError("arrangement_shares: no arrangement given. Give that of at least one model.")
    counts = Counter(name.split()[-1] for name in arrangements)
    return {name: counts[name] / len(arrangements) for name in ("orthogonal", "antipodal", "pentagon", "other")}


def gaps_in_degrees(directions: Float64[Tensor, "two n"]) -> Float64[Tensor, " n"]:
    """Angles between neighbouring directions of the plane, all the way round, from the smallest to the largest."""
    angles = torch.rad2deg(torch.atan2(directions[1], directions[0])).sort().values
    return torch.diff(angles, append=angles[:1] + 360).sort().values
