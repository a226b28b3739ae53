"""How close unit vectors must come to each other, how close random ones do, and how many fit within an angle.

Lower bound: Welch 1974 (`ground_truth.welch_bound`). Almost-orthogonal vectors: Johnson & Lindenstrauss 1984, and
Elhage et al. 2022 (arXiv 2209.10652), "The Superposition Hypothesis".
"""

from math import exp, expm1, lgamma, log, pi, sqrt
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.ground_truth.directions import welch_bound
from sae_toolkit.metrics.matching import off_diagonal_cosines


class Packing(NamedTuple):
    """What a set of n directions reaches, between the bound that nothing beats and what chance gives."""

    largest: float
    """Largest |cos| over all pairs: the coherence."""
    mean_of_largest: float
    """Mean over directions of the largest |cos| with another one."""
    rms: float
    """Root mean square cosine over pairs."""
    welch: float
    """No n directions have a smaller `largest`."""
    random_upper: float
    """What the `largest` of random directions stays below."""


def packing(directions: Float[Tensor, "n d"]) -> Packing:
    """All of it for the rows of a dictionary; at least two of them."""
    n, d = directions.shape
    if n < 2:
        raise ValueError(f"packing: {n} direction(s) given, but an angle needs 2.")
    sums = off_diagonal_cosines(directions)
    return Packing(
        largest=float(sums[:, 2].max()),
        mean_of_largest=float(sums[:, 2].mean()),
        rms=sqrt(float(sums[:, 1].sum()) / (n * (n - 1))),
        welch=welch_bound(n, d),
        random_upper=random_coherence_upper(n, d),
    )


def random_rms_cosine(d: int) -> float:
    """Root mean square cosine of two random directions: 1 / sqrt(d)."""
    return 1 / sqrt(d)


def random_mean_abs_cosine(d: int) -> float:
    """Mean |cos| of two random directions: Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2))."""
    return exp(lgamma(d / 2) - lgamma((d + 1) / 2)) / sqrt(pi)


def random_coherence(n: int, d: int) -> float:
    """About the median of the largest |cos| of n random directions.

    cos^2 of one pair is Beta(1/2, (d - 1) / 2); the n (n - 1) / 2 pairs are taken as independent, which they are two by
    two.
    """
    from scipy.special import betainccinv  # noqa: PLC0415  (slow import)

    if n < 2:
        raise ValueError(f"random_coherence: {n} direction(s) given, but an angle needs 2.")
    if d == 1:
        return 1.0
    exceeded = -expm1(-log(2) / (n * (n - 1) / 2))  # by one pair; by none of them with probability 1/2
    return sqrt(float(betainccinv(0.5, (d - 1) / 2, exceeded)))


def random_coherence_upper(n: int, d: int) -> float:
    """sqrt(2 ln(n^2 / 2) / d), at most 1: above the expected largest |cos| of n random directions.

    A cosine is nearly normal with variance 1 / d, and the largest of N normal ones lies below sqrt(2 ln N) deviations;
    here N is the number of pairs, about n^2 / 2.
    """
    return min(1.0, sqrt(2 * log(n**2 / 2) / d))


def almost_orthogonal_count(epsilon: float, d: int, *, rate: float = 0.25) -> float:
    """exp(rate * epsilon^2 * d): how many directions have all |cos| below epsilon. "exp(d)" needs its epsilon.

    At the rate 1/4 random directions do (the union bound n^2 exp(-epsilon^2 d / 2) = 1, the inverse of
    `random_coherence_upper` but for a factor sqrt(2)), so at least so many exist; at most exp(C epsilon^2 ln(1/epsilon)
    d) do (Alon 2003).
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"almost_orthogonal_count: epsilon={epsilon} given, but a cosine between 0 and 1 is needed.")
    return exp(rate * epsilon**2 * d)
