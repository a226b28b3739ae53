"""Input normalisers. They live inside the SAE as buffers, so that users always pass raw activations."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

NormaliserName = Literal["none", "scalar", "mean_scalar", "per_dimension", "whitening"]

NEGLIGIBLE_SCALE = 1e-6
"""Relative to the largest: dimensions that vary less are not blown up."""

NEGLIGIBLE_PRINCIPAL_SCALE = 1e-4
"""The same for principal directions. Whitening mixes them in fp32, so 1e-6 would turn rounding into 6 % noise."""


class Normaliser(nn.Module, ABC):
    """An invertible affine map of activations, fitted once on data; the identity until then."""

    fitted: Tensor
    """Scalar bool buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))

    @abstractmethod
    def fit_(self, x: Float[Tensor, "batch d_in"]) -> None:
        """Sets the map from a sample of raw activations (statistics in float64)."""

    @abstractmethod
    def normalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]: ...

    @abstractmethod
    def denormalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]: ...

    @abstractmethod
    def normalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The linear part alone: normalise(x) - normalise(y) for difference = x - y."""

    @abstractmethod
    def denormalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Inverse of `normalise_difference`; it maps decoder rows to raw units."""


class DiagonalNormaliser(Normaliser):
    """(x - shift) / scale, dimension by dimension; `name` says which statistics are taken from the data.

    "none": identity. "scalar": one scale, so that the mean square of a coordinate is 1. "mean_scalar": the mean is
    subtracted first. "per_dimension": every coordinate gets mean 0 and variance 1.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, name: NormaliserName, d_in: int) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("shift", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(d_in))

    def fit_(self, x: Float[Tensor, "batch d_in"]) -> None:
        x = x.double()
        if self.name in ("mean_scalar", "per_dimension"):
            self.shift.copy_(x.mean(0))
        mean_square = (x - self.shift).square().mean(0)
        if self.name == "per_dimension":
            self.scale.copy_(floored(mean_square.sqrt()))
        elif self.name != "none":
            self.scale.copy_(floored(mean_square.mean().sqrt()).expand_as(self.scale))
        self.fitted.fill_(True)

    def normalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return (x - self.shift) / self.scale

    def denormalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return x * self.scale + self.shift

    def normalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return difference / self.scale

    def denormalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return difference * self.scale


class WhiteningNormaliser(Normaliser):
    """Zero mean and identity covariance in the original axes (ZCA), by the symmetric root of the covariance."""

    shift: Tensor
    whiten: Tensor
    colour: Tensor

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(d_in))
        self.register_buffer("whiten", torch.eye(d_in))
        self.register_buffer("colour", torch.eye(d_in))

    def fit_(self, x: Float[Tensor, "batch d_in"]) -> None:
        if x.shape[0] <= x.shape[1]:
            raise ValueError(
                f"whitening: {x.shape[0]} samples given for {x.shape[1]} dimensions, so their covariance has no "
                f"inverse. Fit on more samples than dimensions, or choose another normaliser."
            )
        x = x.double()
        mean = x.mean(0)
        variances, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / x.shape[0])
        scales = floored(variances.clamp_min(0).sqrt(), NEGLIGIBLE_PRINCIPAL_SCALE)
        self.shift.copy_(mean)
        self.whiten.copy_(axes / scales @ axes.T)
        self.colour.copy_(axes * scales @ axes.T)
        self.fitted.fill_(True)

    def normalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return (x - self.shift) @ self.whiten

    def denormalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return x @ self.colour + self.shift

    def normalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return difference @ self.whiten

    def denormalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return difference @ self.colour


class SitewiseNormaliser(Normaliser):
    """Vectors that hold several sites side by side, each of which is normalised by itself."""

    def __init__(self, name: NormaliserName, site_widths: Sequence[int]) -> None:
        super().__init__()
        self.site_widths = list(site_widths)
        self.by_site = nn.ModuleList(make_normaliser(name, width) for width in site_widths)

    def fit_(self, x: Float[Tensor, "batch d_in"]) -> None:
        for normaliser, columns in self.parts(x):
            normaliser.fit_(columns)
        self.fitted.fill_(True)

    def parts(self, x: Float[Tensor, "*batch d_in"]) -> Iterator[tuple[Normaliser, Float[Tensor, "*batch _"]]]:
        """Each site's normaliser with the columns it is for."""
        for normaliser, columns in zip(self.by_site, torch.split(x, self.site_widths, dim=-1), strict=True):
            assert isinstance(normaliser, Normaliser)
            yield normaliser, columns

    def normalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return torch.cat([normaliser.normalise(columns) for normaliser, columns in self.parts(x)], dim=-1)

    def denormalise(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return torch.cat([normaliser.denormalise(columns) for normaliser, columns in self.parts(x)], dim=-1)

    def normalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        parts = self.parts(difference)
        return torch.cat([normaliser.normalise_difference(columns) for normaliser, columns in parts], dim=-1)

    def denormalise_difference(self, difference: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        parts = self.parts(difference)
        return torch.cat([normaliser.denormalise_difference(columns) for normaliser, columns in parts], dim=-1)


def floored(scales: Float[Tensor, "*dims"], floor: float = NEGLIGIBLE_SCALE) -> Float[Tensor, "*dims"]:
    """Scales kept away from zero relative to the largest; 1 where all of them are zero (constant data)."""
    largest = scales.max()
    return torch.where(largest > 0, scales.clamp_min(floor * largest), torch.ones_like(scales))


def make_normaliser(name: NormaliserName, d_in: int) -> Normaliser:
    """An unfitted normaliser (the identity) by its name in a config."""
    if name not in get_args(NormaliserName):
        raise ValueError(f"normaliser={name!r} given; choose one of {', '.join(get_args(NormaliserName))}.")
    return WhiteningNormaliser(d_in) if name == "whitening" else DiagonalNormaliser(name, d_in)
