"""Which features fire on a sample: the contract, and features that fire independently, sampled without dense masks."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import log1p, sqrt
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.ground_truth.probabilities import check_probabilities


class Fired(NamedTuple):
    """The cells (sample, feature) that fired, sorted by sample and then by feature."""

    rows: Int[Tensor, " nnz"]
    features: Int[Tensor, " nnz"]


class FiringDraw(ABC):
    """What happens on `n_samples` samples, looked at feature by feature. Each cell may be looked at once.

    A hierarchy asks for the children only where their parent fired, so a draw that decides late saves most of the work.
    """

    n_samples: int

    @abstractmethod
    def among(self, features: Int[Tensor, " m"]) -> Fired:
        """Every sample in which one of these features fires."""

    @abstractmethod
    def at(self, rows: Int[Tensor, " cells"], features: Int[Tensor, " cells"]) -> Bool[Tensor, " cells"]:
        """Whether features[c] fires on sample rows[c]."""


@dataclass(frozen=True, kw_only=True)
class Firing(ABC):
    """Which features fire together. Subclassing registers a model, so that a saved world finds it.

    A model is a frozen dataclass whose fields are numbers or tensors, and defines `draw`.
    """

    models: ClassVar[dict[str, type["Firing"]]] = {}
    """Every concrete model by class name."""

    probabilities: Float[Tensor, " n_features"]
    """Marginal rate at which each feature fires (before a hierarchy silences children of silent parents)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not inspect.isabstract(cls):
            Firing.models[cls.__name__] = cls

    def __post_init__(self) -> None:
        check_probabilities(self.probabilities, type(self).__name__)

    @abstractmethod
    def draw(self, n_samples: int, generator: torch.Generator) -> FiringDraw:
        """Fresh samples; later questions to the draw go on using the generator."""

    def sample(self, n_samples: int, generator: torch.Generator) -> Fired:
        """All cells that fire on fresh samples."""
        return self.draw(n_samples, generator).among(torch.arange(self.n_features))

    @property
    def n_features(self) -> int:
        return len(self.probabilities)

    def describe(self) -> dict[str, Any]:
        """JSON-ready: the model and the expected number of features per sample."""
        expected = float(self.probabilities.double().sum())
        return {"name": type(self).__name__, "n_features": self.n_features, "expected_l0": expected}


@dataclass(frozen=True, kw_only=True)
class IndependentFiring(Firing):
    """Every feature fires on its own. Exact, and the work grows with the number of firings, not with n_features."""

    def draw(self, n_samples: int, generator: torch.Generator) -> FiringDraw:
        return IndependentDraw(self.probabilities.double(), n_samples, generator)


class IndependentDraw(FiringDraw):
    """Independent cells with one probability per feature."""

    def __init__(self, probabilities: Float[Tensor, " n_features"], n_samples: int, generator: torch.Generator) -> None:
        self.probabilities, self.n_samples, self.generator = probabilities, n_samples, generator

    def among(self, features: Int[Tensor, " m"]) -> Fired:
        """Features of similar probability share one sequence of geometric gaps, thinned to each feature's own rate."""
        features = features[self.probabilities[features] > 0]
        probabilities = self.probabilities[features]
        exponents = torch.frexp(probabilities).exponent  # p in [2^(e-1), 2^e)
        keys = []
        for exponent in torch.unique(exponents).tolist():
            bucket = (exponents == exponent).nonzero()[:, 0]
            rates = probabilities[bucket]
            envelope = float(rates.max())
            cells = rare_positions(self.n_samples * len(bucket), envelope, self.generator)
            members = cells % len(bucket)
            if float(rates.min()) < envelope:
                uniform = torch.rand(len(cells), generator=self.generator, dtype=torch.float64)
                kept = uniform * envelope < rates[members]
                cells, members = cells[kept], members[kept]
            keys.append(cells // len(bucket) * len(self.probabilities) + features[bucket[members]])
        return fired_of_keys(keys, len(self.probabilities))

    def at(self, rows: Int[Tensor, " cells"], features: Int[Tensor, " cells"]) -> Bool[Tensor, " cells"]:
        uniform = torch.rand(len(rows), generator=self.generator, dtype=torch.float64)
        return uniform < self.probabilities[features]


class KnownDraw(FiringDraw):
    """A draw that was decided at once, for models whose features cannot be asked one by one."""

    def __init__(self, fired: Fired, n_samples: int, n_features: int) -> None:
        self.n_samples, self.n_features, self.fired = n_samples, n_features, fired
        self.keys = fired.rows * n_features + fired.features

    def among(self, features: Int[Tensor, " m"]) -> Fired:
        asked = torch.zeros(self.n_features, dtype=torch.bool)
        asked[features] = True
        kept = asked[self.fired.features]
        return Fired(self.fired.rows[kept], self.fired.features[kept])

    def at(self, rows: Int[Tensor, " cells"], features: Int[Tensor, " cells"]) -> Bool[Tensor, " cells"]:
        if len(self.keys) == 0:
            return torch.zeros(len(rows), dtype=torch.bool)
        asked = rows * self.n_features + features
        places = torch.searchsorted(self.keys, asked).clamp(max=len(self.keys) - 1)
        return self.keys[places] == asked


def rare_positions(n_trials: int, rate: float, generator: torch.Generator) -> Int[Tensor, " hits"]:
    """Where the successes of n_trials independent trials of one rate lie, sorted, by drawing the gaps between them."""
    if rate <= 0 or n_trials == 0:
        return torch.zeros(0, dtype=torch.int64)
    if rate >= 1:
        return torch.arange(n_trials)
    found, last = [], -1
    while last < n_trials - 1:
        expected = (n_trials - 1 - last) * rate
        n_gaps = int(expected + 4 * sqrt(expected)) + 8  # one round is almost always enough; the loop makes it exact
        uniform = torch.rand(n_gaps, generator=generator, dtype=torch.float64)
        gaps = (torch.log1p(-uniform) / log1p(-rate)).floor_().clamp_(max=n_trials).long() + 1
        found.append(last + gaps.cumsum(0))
        last = int(found[-1][-1])
    positions = torch.cat(found)
    return positions[: int(torch.searchsorted(positions, n_trials))]


def fired_of_keys(keys: Iterable[Tensor], n_features: int) -> Fired:
    """Cells given as row * n_features + feature, in any order, each at most once."""
    joined = torch.cat([torch.zeros(0, dtype=torch.int64), *keys]).sort().values
    rows = joined // n_features
    return Fired(rows, joined - rows * n_features)
