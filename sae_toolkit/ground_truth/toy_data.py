"""Sparse inputs of toy models, for many cells of an experiment at once (Elhage et al. 2022, arXiv 2209.10652).

"Toy Models of Superposition", sections "Demonstrating Superposition" and "Correlated and Anticorrelated Features".

`Firing` draws one world sparsely; here every cell reads the same dense coins, thresholded by its own probabilities, so
that hundreds of cells cost one draw and their differences are not sampling noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor


class ToyDraw(NamedTuple):
    """Random numbers that all cells share."""

    coins: Float[Tensor, "n_features n_samples"]
    """Uniform on [0, 1): a feature fires where its coin lies in its interval."""
    magnitudes: Float[Tensor, "n_features n_samples"]
    """What the feature is worth where it fires."""


@dataclass(frozen=True, kw_only=True)
class ToyData:
    """x_i = U[0, 1] with probability p_i, else 0; one row of probabilities per cell, one grouping for all."""

    probabilities: Float[Tensor, "cells n_features"]
    """p = 1 - S (sparsity), in [0, 1]."""
    correlated: tuple[tuple[int, ...], ...] = ()
    """Groups of features on one coin: all fire or none. Their probabilities must be equal."""
    exclusive: tuple[tuple[int, ...], ...] = ()
    """Groups of features of which at most one fires (anti-correlated). Their probabilities sum to at most 1."""
    signed: bool = False
    """Magnitudes from U[-1, 1] (the absolute-value task) instead of U[0, 1]."""

    @classmethod
    def uniform(
        cls,
        probabilities: Sequence[float],
        n_features: int,
        *,
        correlated: tuple[tuple[int, ...], ...] = (),
        exclusive: tuple[tuple[int, ...], ...] = (),
        signed: bool = False,
    ) -> "ToyData":
        """One cell per probability, the same for all features of the cell."""
        rows = torch.tensor(list(probabilities), dtype=torch.float32)[:, None].repeat(1, n_features)
        return cls(probabilities=rows, correlated=correlated, exclusive=exclusive, signed=signed)

    def __post_init__(self) -> None:
        p = self.probabilities
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError(
                f"ToyData: probabilities from {float(p.min()):g} to {float(p.max()):g} given. They must lie in [0, 1]."
            )
        grouped = [feature for group in (*self.correlated, *self.exclusive) for feature in group]
        if len(set(grouped)) < len(grouped) or not set(grouped) <= set(range(self.n_features)):
            raise ValueError(
                f"ToyData: groups {self.correlated} and {self.exclusive} given for {self.n_features} features. Name "
                f"features from 0 to {self.n_features - 1}, each in one group at most."
            )
        for group in self.correlated:
            if not torch.allclose(p[:, group], p[:, group[:1]]):
                raise ValueError(
                    f"ToyData: correlated group {group} given with unequal probabilities, but its features share one "
                    "coin. Give them one probability."
                )
        for group in self.exclusive:
            if float(p[:, group].sum(dim=1).max()) > 1 + 1e-6:
                raise ValueError(
                    f"ToyData: the probabilities of exclusive group {group} sum to more than 1, but at most one of its "
                    "features fires. Lower them."
                )

    @property
    def n_cells(self) -> int:
        return self.probabilities.shape[0]

    @property
    def n_features(self) -> int:
        return self.probabilities.shape[1]

    @cached_property
    def coin_of(self) -> Int[Tensor, " n_features"]:
        """The coin of each feature: its own, or that of the first feature of its group."""
        coins = torch.arange(self.n_features)
        for group in (*self.correlated, *self.exclusive):
            coins[list(group)] = group[0]
        return coins

    @cached_property
    def starts(self) -> Float[Tensor, "cells n_features"]:
        """Where the interval of each feature begins on its coin: 0, but one after the other in exclusive groups."""
        starts = torch.zeros_like(self.probabilities)
        for group in self.exclusive:
            members = self.probabilities[:, group]
            starts[:, list(group)] = members.cumsum(dim=1) - members
        return starts

    def draw(self, n_samples: int, generator: torch.Generator) -> ToyDraw:
        """Fresh random numbers; `at` turns them into the inputs of every cell."""
        coins = torch.rand(self.n_features, n_samples, generator=generator)[self.coin_of]
        magnitudes = torch.rand(self.n_features, n_samples, generator=generator)
        return ToyDraw(coins, 2 * magnitudes - 1 if self.signed else magnitudes)

    def at(self, draw: ToyDraw) -> Float[Tensor, "cells n_samples n_features"]:
        """The inputs x of every cell, contiguous along the samples (see `ToyModels.hidden`)."""
        x = torch.empty(
            self.n_cells, *draw.coins.shape
        )  # comparing into floats: 6 times faster than a mask of booleans
        torch.lt(draw.coins, (self.starts + self.probabilities)[:, :, None], out=x)
        if self.exclusive:
            x *= torch.ge(draw.coins, self.starts[:, :, None])
        return x.mul_(draw.magnitudes).mT

    def sample(self, n_samples: int, generator: torch.Generator) -> Float[Tensor, "cells n_samples n_features"]:
        """Fresh inputs of every cell."""
        return self.at(self.draw(n_samples, generator))

    def mask_probabilities(self, masks: Bool[Tensor, "n_masks n_features"]) -> Float64[Tensor, "cells n_masks"]:
        """How likely it is that exactly the features of each mask fire."""
        p = self.probabilities.double()
        grouped = {feature for group in (*self.correlated, *self.exclusive) for feature in group}
        alone = [(feature,) for feature in range(self.n_features) if feature not in grouped]
        total = torch.ones(self.n_cells, len(masks), dtype=torch.float64)
        for group in (*alone, *self.correlated):
            fires, rate = masks[:, group], p[:, group[:1]]
            total *= fires.all(dim=1) * rate + ~fires.any(dim=1) * (1 - rate)
        for group in self.exclusive:
            fires, rates = masks[:, group].double(), p[:, group]
            n_firing = fires.sum(dim=1)
            total *= (n_firing == 1) * (rates @ fires.T) + (n_firing == 0) * (1 - rates.sum(dim=1, keepdim=True))
        return total

    def repeat(self, n_inits: int) -> "ToyData":
        """Every cell n_inits times in a row."""
        return replace(self, probabilities=self.probabilities.repeat_interleave(n_inits, dim=0))

    def select(self, cells: slice) -> "ToyData":
        """Some of the cells."""
        return replace(self, probabilities=self.probabilities[cells])
