"""Whether the axes of an activation space are special: kurtosis along them against random rotations.

Independent features on few axes make heavy tails there, and any mixture of them is closer to a Gaussian (the argument
of independent component analysis). Basis: Elhage et al. 2022 (arXiv 2209.10652), "Superposition in a Privileged Basis".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.seeding import generator_for

N_ROTATIONS = 200
MIN_SAMPLES = 8
"""A fourth moment of fewer samples says nothing."""


@dataclass(frozen=True, kw_only=True)
class BasisPrivilege:
    """Mean excess kurtosis over the neurons, and what random rotations of the same activations have."""

    kurtosis: float
    """0 for Gaussian neurons, above it for heavy tails."""
    rotated: Float64[Tensor, " n_rotations"]
    """The same statistic in each rotated basis."""
    n_neurons: int
    """Neurons that vary at all."""

    @property
    def z(self) -> float:
        """Standard deviations of the null that the kurtosis lies above the null's mean."""
        return float((self.kurtosis - self.rotated.mean()) / self.rotated.std())

    @property
    def percentile(self) -> float:
        """Share of rotations with a smaller kurtosis, from 0 to 1."""
        return float((self.rotated < self.kurtosis).double().mean())


def basis_privilege(
    activations: Float[Tensor, "n_samples d"], *, seed: int, n_rotations: int = N_ROTATIONS
) -> BasisPrivilege:
    """Neurons that never vary are left out; drop those with massive activations before, they would decide alone.

    Each null basis is Haar-distributed over all orthogonal matrices, reflections included, so that signs are random.
    """
    if activations.shape[0] < MIN_SAMPLES or n_rotations < 2:
        raise ValueError(
            f"basis_privilege: {activations.shape[0]} samples and n_rotations={n_rotations} given, but at least "
            f"{MIN_SAMPLES} samples and 2 rotations are needed."
        )
    x = activations.detach().cpu().double()
    x = x[:, x.std(dim=0) > 0]
    if x.shape[1] < 2:
        raise ValueError(f"basis_privilege: {x.shape[1]} neuron(s) vary, but a rotation needs at least 2.")
    x = x - x.mean(dim=0)
    rotations = (random_rotation(x.shape[1], seed=seed, index=i) for i in range(n_rotations))
    rotated = torch.stack([excess_kurtosis(x @ rotation).mean() for rotation in rotations])
    return BasisPrivilege(kurtosis=float(excess_kurtosis(x).mean()), rotated=rotated, n_neurons=x.shape[1])


def excess_kurtosis(x: Float64[Tensor, "n_samples d"]) -> Float64[Tensor, " d"]:
    """Fourth central moment / variance^2 - 3, per column."""
    squares = (x - x.mean(dim=0)).square()
    kurtosis: Tensor = squares.square().mean(dim=0) / squares.mean(dim=0).square() - 3
    return kurtosis


def random_rotation(d: int, *, seed: int, index: int = 0) -> Float64[Tensor, "d d"]:
    """Haar-distributed over the orthogonal matrices: QR of a Gaussian with the signs of R moved into Q."""
    gaussian = torch.randn(d, d, generator=generator_for(seed, "random rotation", index), dtype=torch.float64)
    basis, triangle = torch.linalg.qr(gaussian)
    rotation: Tensor = basis * triangle.diagonal().sign()
    return rotation
