"""Hand-built dictionaries whose geometry is known exactly; rows are the corners, as unit vectors."""

from math import cos, pi, sin, sqrt

import torch
from torch import Tensor


def polygon(n: int) -> Tensor:
    return torch.tensor([[cos(2 * pi * i / n), sin(2 * pi * i / n)] for i in range(n)], dtype=torch.float64)


def tetrahedron() -> Tensor:
    return torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64) / sqrt(3)


def square_antiprism() -> Tensor:
    """Two squares turned by 45 degrees; at z^2 = 1/3 the frame is tight, so that all D_i = 3/8."""
    z, r = sqrt(1 / 3), sqrt(2 / 3)
    rows = [[r * cos(pi * i / 2), r * sin(pi * i / 2), z] for i in range(4)]
    rows += [[r * cos(pi * i / 2 + pi / 4), r * sin(pi * i / 2 + pi / 4), -z] for i in range(4)]
    return torch.tensor(rows, dtype=torch.float64)


def digon() -> Tensor:
    return torch.tensor([[1.0], [-1.0]], dtype=torch.float64)


CORNERS = {
    "dedicated": (torch.ones(1, 1, dtype=torch.float64), 1.0),
    "digon": (digon(), 1 / 2),
    "triangle": (polygon(3), 2 / 3),
    "tetrahedron": (tetrahedron(), 3 / 4),
    "pentagon": (polygon(5), 2 / 5),
    "square antiprism": (square_antiprism(), 3 / 8),
}
"""Name -> corners, and the share of a dimension that each corner has."""


def columns(*factors: Tensor) -> Tensor:
    """W [n_hidden n_features]: each factor in dimensions of its own."""
    return torch.block_diag(*(factor.T for factor in factors))


def rotation(d: int, seed: int = 0) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return q
