"""The residual stream as memory (Elhage et al. 2021): who reads the dimensions that another writes, who clears them."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.analysis.factored import Factored

NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are rounding."""


def subspace(vectors: Float[Tensor, "d_model n"]) -> Float64[Tensor, "d_model rank"]:
    """An orthonormal basis of what the columns span."""
    left, sizes, _ = torch.linalg.svd(vectors.detach().double(), full_matrices=False)
    kept: Tensor = left[:, sizes > NEGLIGIBLE * sizes.max()]
    return kept


def written_space(circuit: Factored) -> Float64[Tensor, "d_model rank"]:
    """The dimensions that x @ circuit can have."""
    return subspace(circuit.right.T)


def read_space(circuit: Factored) -> Float64[Tensor, "d_model rank"]:
    """The dimensions of x that x @ circuit depends on."""
    return subspace(circuit.left)


def overlap(a: Float64[Tensor, "d_model n"], b: Float64[Tensor, "d_model m"]) -> float:
    """||P_a P_b||_F^2 / min(n, m) of two orthonormal bases: the share of the smaller space inside the larger.

    1 inside, 0 orthogonal; random ones score max(n, m) / d_model (`chance_overlap`).
    """
    smaller = min(a.shape[1], b.shape[1])
    return float((a.T @ b).square().sum()) / smaller if smaller else float("nan")


def chance_overlap(a: Float64[Tensor, "d_model n"], b: Float64[Tensor, "d_model m"]) -> float:
    """The mean overlap of random spaces of the same dimensions."""
    return max(a.shape[1], b.shape[1]) / a.shape[0]


def cleared_dimensions(circuit: Factored, *, tolerance: float = 0.1) -> int:
    """Dimensions that x + x @ circuit has lost: eigenvalues within `tolerance` of -1.

    For a head that attends to its own token, or for neurons that read W_in and write W_out: Factored(W_in, W_out).
    """
    return int(((circuit.eigenvalues() + 1).abs() <= tolerance).sum())
