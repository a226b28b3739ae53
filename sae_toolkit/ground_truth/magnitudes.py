"""How strongly a feature fires: drawn for the entries that fire, and for those alone."""

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Magnitudes(ABC):
    """The distribution of coefficients given that a feature fires; never negative. A zero does not count as firing.

    A model is a frozen dataclass whose fields are numbers or tensors; subclassing registers it, so that a saved world
    finds it.
    """

    models: ClassVar[dict[str, type["Magnitudes"]]] = {}
    """Every concrete model by class name."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not inspect.isabstract(cls):
            Magnitudes.models[cls.__name__] = cls

    @abstractmethod
    def sample(self, features: Int[Tensor, " nnz"], generator: torch.Generator) -> Float[Tensor, " nnz"]:
        """One magnitude for each entry of `features` (the index of the feature that fired)."""

    @property
    def n_features(self) -> int | None:
        """For how many features this was made; None where all features share one distribution."""
        return None


@dataclass(frozen=True, kw_only=True)
class ConstantMagnitudes(Magnitudes):
    """Every firing has the same strength."""

    value: float = 1.0
    """Coefficient of a feature that fires, in activation units."""

    def __post_init__(self) -> None:
        check_positive("ConstantMagnitudes", value=self.value)

    def sample(self, features: Int[Tensor, " nnz"], generator: torch.Generator) -> Float[Tensor, " nnz"]:
        return torch.full((len(features),), self.value)


@dataclass(frozen=True, kw_only=True)
class UniformMagnitudes(Magnitudes):
    """U[low, high) (Elhage et al. 2022, Toy Models of Superposition, use [0, 1))."""

    low: float = 0.0
    """Smallest coefficient, in activation units."""
    high: float = 1.0
    """Upper end (excluded), in activation units."""

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high) and 0 <= self.low < self.high):
            raise ValueError(f"UniformMagnitudes: low={self.low}, high={self.high} given; it needs 0 <= low < high.")

    def sample(self, features: Int[Tensor, " nnz"], generator: torch.Generator) -> Float[Tensor, " nnz"]:
        return self.low + (self.high - self.low) * torch.rand(len(features), generator=generator)


@dataclass(frozen=True, kw_only=True)
class FoldedNormalMagnitudes(Magnitudes):
    """|N(mean, std^2)|."""

    mean: float = 0.0
    """Mean of the normal before its absolute value is taken, in activation units."""
    std: float = 1.0
    """Standard deviation of that normal, in activation units."""

    def __post_init__(self) -> None:
        check_positive("FoldedNormalMagnitudes", std=self.std)
        if not isfinite(self.mean):
            raise ValueError(f"FoldedNormalMagnitudes: mean={self.mean} given, but it must be finite.")

    def sample(self, features: Int[Tensor, " nnz"], generator: torch.Generator) -> Float[Tensor, " nnz"]:
        return (self.mean + self.std * torch.randn(len(features), generator=generator)).abs()


@dataclass(frozen=True, kw_only=True)
class ExponentialMagnitudes(Magnitudes):
    """Exponential with a given mean: many weak firings, few strong ones."""

    mean: float = 1.0
    """Mean coefficient, in activation units."""

    def __post_init__(self) -> None:
        check_positive("ExponentialMagnitudes", mean=self.mean)

    def sample(self, features: Int[Tensor, " nnz"], generator: torch.Generator) -> Float[Tensor, " nnz"]:
        return torch.empty(len(features)).exponential_(1 / self.mean, generator=generator)


@dataclass(frozen=True, kw_only=True)
class RectifiedNormalMagnitudes(Magnitudes):
    """relu(N(mean_i, std_i^2)) with a mean and a standard deviation per feature."""

    mean: Float[Tensor, " n_features"]
    """Mean before rectification, in activation units."""
    std: Float[Tensor, " n_features"]
    """Standard deviation before rectification, in activation units."""

    @classmethod
    def same_for_all(cls, n_features: int, *, mean: float, std: float) -> "RectifiedNormalMagnitudes":
        """One mean and one standard deviation for every feature."""
        return cls(mean=torch.full((n_features,), mean), std=torch.full((n_features,), std))

    def __post_init__(self) -> None:
        if self.mean.shape != self.std.shape:
            raise ValueError(
                f"RectifiedNormalMagnitudes: {len(self.mean)} means and {len(self.std)} standard deviations given. "
                "Give one of each per feature."
            )
        if not self.mean.isfinite().all() or not (self.std.isfinite() & (self.std >= 0)).all():
            raise ValueError("RectifiedNormalMagnitudes: means must be finite, standard deviations finite and >= 0.")

    @property
    def n_features(self) -> int:
        return len(self.mean)

    def sample(self, features: Int[Tensor, " nnz"], generator: torch.Generator) -> Float[Tensor, " nnz"]:
        noise = torch.randn(len(features), generator=generator)
        return torch.relu(self.mean[features] + self.std[features] * noise)


def check_positive(what: str, **values: float) -> None:
    """A ValueError that names the value which is not a positive finite number."""
    for name, value in values.items():
        if not (isfinite(value) and value > 0):
            raise ValueError(f"{what}: {name}={value} given, but it must be finite and above 0.")
