"""Dictionaries of unit feature directions `[n_features d_in]`, from random to nearly as incoherent as possible."""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.seeding import generator_for


def random_directions(n_features: int, d_in: int, *, seed: int) -> Float[Tensor, "n_features d_in"]:
    """Unit rows uniform on the sphere (normalised Gaussians)."""
    check_sizes("random_directions", n_features, d_in)
    return unit_rows(torch.randn(n_features, d_in, generator=generator_for(seed, "random directions")))


def orthogonal_directions(n_features: int, d_in: int, *, seed: int) -> Float[Tensor, "n_features d_in"]:
    """Orthonormal rows, uniform over rotations; at most d_in of them exist."""
    check_sizes("orthogonal_directions", n_features, d_in)
    if n_features > d_in:
        raise ValueError(
            f"orthogonal_directions: n_features={n_features} asked in d_in={d_in} dimensions, which hold at most "
            f"{d_in} orthogonal directions. Choose n_features <= d_in, or low_coherence_directions."
        )
    gaussian = torch.randn(d_in, n_features, generator=generator_for(seed, "orthogonal directions"))
    basis, triangle = torch.linalg.qr(gaussian)
    return unit_rows((basis * triangle.diagonal().sign()).T.contiguous())


def antipodal_directions(n_features: int, d_in: int, *, seed: int) -> Float[Tensor, "n_features d_in"]:
    """Rows 2i and 2i + 1 point in opposite directions, all pairs orthogonal; an odd last row stands alone."""
    check_sizes("antipodal_directions", n_features, d_in)
    if n_features > 2 * d_in:
        raise ValueError(
            f"antipodal_directions: n_features={n_features} asked in d_in={d_in} dimensions, which hold at most "
            f"{d_in} orthogonal pairs. Choose n_features <= {2 * d_in}, or low_coherence_directions."
        )
    axes = orthogonal_directions((n_features + 1) // 2, d_in, seed=seed)
    return torch.stack([axes, -axes], dim=1).reshape(-1, d_in)[:n_features].clone()


def low_coherence_directions(
    n_features: int, d_in: int, *, seed: int, n_steps: int = 600
) -> Float[Tensor, "n_features d_in"]:
    """Unit rows whose largest |cos| is pushed towards the Welch bound; needs memory for `[n_features n_features]`.

    Adam on log-sum-exp(sharpness * cos^2) / sharpness, a smooth maximum, with a sharpness that grows geometrically.
    """
    check_sizes("low_coherence_directions", n_features, d_in)
    if n_features <= d_in:
        return orthogonal_directions(n_features, d_in, seed=seed)
    rows = random_directions(n_features, d_in, seed=seed).requires_grad_()
    optimizer = torch.optim.Adam([rows], lr=0.02)
    diagonal = torch.eye(n_features, dtype=torch.bool)
    best, best_coherence = rows.detach().clone(), coherence(rows.detach())
    for step in range(n_steps):
        progress = step / max(n_steps - 1, 1)
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - progress) + 1e-4
        sharpness = 20.0 * 200.0**progress  # 20 spreads the push over many pairs, 4000 sees only the worst ones
        unit = unit_rows(rows)
        squares = (unit @ unit.T).square().masked_fill(diagonal, 0)
        loss = torch.logsumexp(sharpness * squares.flatten(), dim=0) / sharpness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        worst = squares.detach().max().sqrt().item()
        if worst < best_coherence:
            best, best_coherence = unit.detach().clone(), worst
    return best


def gram_penalty_directions(
    n_features: int, d_in: int, *, seed: int, n_steps: int = 100, lr: float = 3e-4
) -> Float[Tensor, "n_features d_in"]:
    """Gaussian unit rows, then Adam on sum_offdiag G_ij^2 + n sum_i (G_ii - 1)^2 with G = V V^T; unit rows again.

    The dictionary of SynthSAEBench (arXiv 2602.14687) and of SAELens' synthetic data. G is never built: its squared
    norm is that of V^T V `[d_in d_in]`, so that memory stays at a few copies of V.
    """
    check_sizes("gram_penalty_directions", n_features, d_in)
    rows = random_directions(n_features, d_in, seed=seed).requires_grad_()
    optimizer = torch.optim.Adam([rows], lr=lr)
    for _ in range(n_steps):
        with torch.no_grad():
            lengths = rows.square().sum(dim=1, keepdim=True)
            # gradient of ||V^T V||^2 - sum_i G_ii^2 + n sum_i (G_ii - 1)^2, written out to save one d x d product
            rows.grad = 4 * (rows @ (rows.T @ rows) - lengths * rows + n_features * (lengths - 1) * rows)
        optimizer.step()
    return unit_rows(rows.detach())


def welch_bound(n_features: int, d_in: int) -> float:
    """No n unit vectors have a smaller largest |cos|: sqrt((n - d) / (d (n - 1))), 0 up to n = d (Welch 1974)."""
    check_sizes("welch_bound", n_features, d_in)
    if n_features <= d_in:
        return 0.0
    return sqrt((n_features - d_in) / (d_in * (n_features - 1)))


def coherence(directions: Float[Tensor, "n_features d_in"], *, chunk_rows: int = 1024) -> float:
    """Largest |cos| between two different rows (0 for one row); only `[chunk_rows n_features]` exists at a time."""
    unit = unit_rows(directions)
    largest = 0.0
    for start in range(0, len(unit), chunk_rows):
        cosines = (unit[start : start + chunk_rows] @ unit.T).abs()
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0
        largest = max(largest, cosines.max().item())
    return largest


def welch_gap(directions: Float[Tensor, "n_features d_in"]) -> float:
    """(coherence - Welch bound) / (1 - Welch bound): 0 for the least coherent dictionary, 1 for a repeated row."""
    bound = welch_bound(*directions.shape)
    return (coherence(directions) - bound) / (1 - bound)


def unit_rows(rows: Float[Tensor, "n_features d_in"]) -> Float[Tensor, "n_features d_in"]:
    """Each row divided by its length."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths


def check_sizes(what: str, n_features: int, d_in: int) -> None:
    """Both sizes must be at least 1."""
    if n_features < 1 or d_in < 1:
        raise ValueError(f"{what}: n_features={n_features}, d_in={d_in} given, but both must be at least 1.")
