"""Ways to express a vector in fixed unit directions: one product, greedy pursuit, convex optimisation.

An SAE's encoder is one product; pursuit and the lasso are what it is amortising. All coefficients are non-negative and
row i of the result depends on row i of the input alone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.sparse_rows import SparseRows

NEGLIGIBLE = 1e-5
"""Relative to the input's length: a smaller correlation with the residual is rounding (float32), not signal."""

DUPLICATES = 1e-9
"""Ridge that lets equal directions share a coefficient instead of making the normal equations singular."""


class Coder(ABC):
    """Finds coefficients z >= 0 with x close to z @ directions."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"]) -> SparseRows:
        """Coefficients `[batch w]`; the directions have length 1 (or 0: such a row is never used)."""


@dataclass(frozen=True)
class LinearTopK(Coder):
    """The k largest positive correlations with x, as they are: what the best linear encoder tied to D could do."""

    k: int

    def __post_init__(self) -> None:
        check_positive("LinearTopK", "k", self.k)

    def encode(self, x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"]) -> SparseRows:
        values, indices = (x @ directions.T).topk(min(self.k, directions.shape[0]), dim=1)
        return positive_entries(values, indices, directions.shape[0])


@dataclass(frozen=True)
class MatchingPursuit(Coder):
    """Non-negative orthogonal matching pursuit (Pati et al. 1993; non-negative as in Bruckstein et al. 2008).

    At most k times: add the direction with the largest positive correlation with the residual, then refit all chosen
    ones by least squares. Directions whose final coefficient is negative are dropped and the others refitted.
    """

    k: int
    smallest: float = 0.0
    """In the units of x: a sample takes no direction that correlates less than this with what is left of it, so that
    it uses as many as it needs. 0: up to rounding."""

    def __post_init__(self) -> None:
        check_positive("MatchingPursuit", "k", self.k)
        if not self.smallest >= 0:
            raise ValueError(f"MatchingPursuit: smallest={self.smallest} given, but it must not be negative.")

    def encode(self, x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"]) -> SparseRows:
        chosen, used = pursue(x, directions, min(self.k, *directions.shape), self.smallest)
        return nonnegative_refit(x, directions, chosen, used)


@dataclass(frozen=True)
class RefittedTopK(Coder):
    """The k largest positive correlations with x choose, non-negative least squares weighs.

    A choice like an SAE's (one product), with weights that overlapping directions cannot spoil.
    """

    k: int

    def __post_init__(self) -> None:
        check_positive("RefittedTopK", "k", self.k)

    def encode(self, x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"]) -> SparseRows:
        values, chosen = (x @ directions.T).topk(min(self.k, *directions.shape), dim=1)
        return nonnegative_refit(x, directions, chosen, values > 0)


def nonnegative_refit(
    x: Float[Tensor, "batch d_in"],
    directions: Float[Tensor, "w d_in"],
    chosen: Int[Tensor, "batch s"],
    used: Bool[Tensor, "batch s"],
) -> SparseRows:
    """Least squares on the chosen directions; those that come out negative are dropped and the others refitted."""
    atoms = directions[chosen]  # [batch s d_in]
    gram = atoms @ atoms.mT
    correlations = torch.einsum("bsd,bd->bs", atoms, x)
    while True:
        values = least_squares(gram, correlations, used)
        negative = used & (values < 0)
        if not negative.any():
            return positive_entries(values, chosen, directions.shape[0])
        used = used & ~negative


def pursue(
    x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"], n_steps: int, smallest: float
) -> tuple[Int[Tensor, "batch n_steps"], Bool[Tensor, "batch n_steps"]]:
    """Which directions orthogonal pursuit takes, and which of its steps found anything.

    The residual after a least-squares refit is the part of x orthogonal to the chosen directions, so an orthonormal
    basis of them, grown by one (twice orthogonalised) vector a step, replaces a solve per step.
    """
    batch, d_in = x.shape
    residual = x
    enough = (NEGLIGIBLE * x.norm(dim=1)).clamp_min(smallest)
    basis = x.new_zeros(batch, n_steps, d_in)
    chosen = torch.zeros(batch, n_steps, dtype=torch.long, device=x.device)
    used = torch.zeros(batch, n_steps, dtype=torch.bool, device=x.device)
    taken = torch.zeros(batch, directions.shape[0], dtype=torch.bool, device=x.device)
    for step in range(n_steps):
        best, index = (residual @ directions.T).masked_fill(taken, -torch.inf).max(dim=1)
        fresh = directions[index]
        for _ in range(2):
            fresh = fresh - torch.einsum("bs,bsd->bd", torch.einsum("bsd,bd->bs", basis, fresh), basis)
        length = fresh.norm(dim=1)
        use = (best > enough) & (length > NEGLIGIBLE)
        fresh = torch.where(use[:, None], fresh / length.clamp_min(NEGLIGIBLE)[:, None], 0.0)
        residual = residual - (residual * fresh).sum(1, keepdim=True) * fresh
        basis[:, step], chosen[:, step], used[:, step] = fresh, index, use
        taken.scatter_(1, index[:, None], True)
    return chosen, used


def least_squares(
    gram: Float[Tensor, "batch s s"], correlations: Float[Tensor, "batch s"], used: Bool[Tensor, "batch s"]
) -> Float[Tensor, "batch s"]:
    """Coefficients of the used columns from their normal equations (float64), 0 for the others."""
    both = used[:, :, None] & used[:, None, :]
    identity = torch.eye(gram.shape[1], dtype=torch.float64, device=gram.device)
    system = torch.where(both, gram.double(), identity) + DUPLICATES * identity
    right = torch.where(used, correlations.double(), 0.0)
    solution: Tensor = torch.linalg.solve(system, right)
    return solution.to(correlations.dtype)


@dataclass(frozen=True)
class NonnegativeLasso(Coder):
    """min over z >= 0 of ||x - z D||^2 / 2 + penalty * sum z, by FISTA with restarts.

    Beck & Teboulle 2009, section 4; restart by O'Donoghue & Candes 2015 (arXiv 1204.3982), section 3.2.
    """

    penalty: float
    """In the units of the activations: every coefficient comes out smaller by about this much."""
    n_iterations: int = 300

    def __post_init__(self) -> None:
        check_positive("NonnegativeLasso", "penalty", self.penalty)
        check_positive("NonnegativeLasso", "n_iterations", self.n_iterations)

    def encode(self, x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"]) -> SparseRows:
        return SparseRows.from_dense(nonnegative_fista(x, directions, self.penalty, self.n_iterations))


@dataclass(frozen=True)
class NonnegativeLeastSquares(Coder):
    """min over z >= 0 of ||x - z D||^2, by the same iteration: exact, but rarely sparse."""

    n_iterations: int = 300

    def __post_init__(self) -> None:
        check_positive("NonnegativeLeastSquares", "n_iterations", self.n_iterations)

    def encode(self, x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"]) -> SparseRows:
        return SparseRows.from_dense(nonnegative_fista(x, directions, 0.0, self.n_iterations))


def nonnegative_fista(
    x: Float[Tensor, "batch d_in"], directions: Float[Tensor, "w d_in"], penalty: float, n_iterations: int
) -> Float[Tensor, "batch w"]:
    """Accelerated projected gradient; a sample restarts its momentum whenever that points uphill."""
    step = 1.0 / torch.linalg.matrix_norm(directions, ord=2).square().clamp_min(NEGLIGIBLE)
    linear = x @ directions.T - penalty
    z = torch.zeros_like(linear)
    ahead, momentum = z, torch.ones_like(x[:, :1])
    for _ in range(n_iterations):
        gradient = (ahead @ directions) @ directions.T - linear
        stepped = (ahead - step * gradient).clamp_min(0)
        restart = ((ahead - stepped) * (stepped - z)).sum(1, keepdim=True) > 0
        momentum = torch.where(restart, 1.0, momentum)
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = stepped + (momentum - 1) / following * (stepped - z)
        z, momentum = stepped, following
    return z


def positive_entries(values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], n_columns: int) -> SparseRows:
    """Sparse rows of the entries above zero."""
    keep = values > 0
    offsets = torch.nn.functional.pad(keep.sum(1).cumsum(0), (1, 0))
    return SparseRows(values[keep], indices[keep], offsets, (values.shape[0], n_columns))


def check_positive(what: str, name: str, value: int | float) -> None:
    """The one condition on every coder setting."""
    if value <= 0:
        raise ValueError(f"{what}: {name}={value} given, but it must be above 0.")
