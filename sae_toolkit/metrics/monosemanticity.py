"""How many features a neuron works for (Elhage et al. 2022, arXiv 2209.10652, "Computation in Superposition").

`W` leads into the hidden layer and `W2` out of it; a model that leads out through W transposed has no W2.
"""

from jaxtyping import Bool, Float, Float64
from torch import Tensor

MONOSEMANTIC = 0.9
"""Share of a neuron's squared contributions that its largest feature must exceed."""
USED = 1e-3
"""Largest contribution below which a neuron does nothing and so belongs to no feature."""


def neuron_contributions(
    W: Float[Tensor, "*instances n_hidden n_features"],
    W2: Float[Tensor, "*instances n_features n_hidden"] | None = None,
) -> Float64[Tensor, "*instances n_hidden n_features"]:
    """c_ji = |W_ji| ||W2_:j||: how strongly neuron j reads feature i, times how strongly it is read itself."""
    read = W.detach().cpu().double()
    written = read if W2 is None else W2.detach().cpu().double().mT
    contributions: Tensor = read.abs() * written.norm(dim=-1, keepdim=True)
    return contributions


def monosemantic_neurons(
    contributions: Float[Tensor, "*instances n_hidden n_features"], *, threshold: float = MONOSEMANTIC
) -> Bool[Tensor, "*instances n_hidden"]:
    """max_i c_ji^2 / sum_i c_ji^2 > threshold; never for a neuron that does nothing."""
    squares = contributions.square()
    largest = squares.amax(dim=-1)
    return (largest > threshold * squares.sum(dim=-1)) & (largest > USED**2)


def features_per_neuron(
    contributions: Float[Tensor, "*instances n_hidden n_features"],
) -> Float64[Tensor, "*instances n_hidden"]:
    """Participation ratio (sum_i c_ji^2)^2 / sum_i c_ji^4: k for k equal contributions; 0 for a neuron without any."""
    squares = contributions.double().square()
    fourth = squares.square().sum(dim=-1)
    ratio: Tensor = squares.sum(dim=-1).square() / fourth.where(fourth > 0, 1.0)
    return ratio


def served_features(
    contributions: Float[Tensor, "*instances n_hidden n_features"],
) -> Bool[Tensor, "*instances n_features"]:
    """The features that are the largest one of some neuron that does something."""
    used = contributions.amax(dim=-1, keepdim=True) > USED
    largest = (contributions == contributions.amax(dim=-1, keepdim=True)) & used
    return largest.any(dim=-2)
