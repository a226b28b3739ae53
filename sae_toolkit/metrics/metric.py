"""The contract of a metric: fed batch by batch, computed once, the same on toy worlds and on real models."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.score_units import ScoreUnits
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput


class Metric(ABC):
    """What a metric needs beyond the data it takes in `__init__`, so it cannot be built where that truth is missing.

    Sums are float64; the result does not depend on how the samples are cut into batches.
    """

    always_on: ClassVar[bool] = True
    """Whether every evaluation feeds it; what costs about as much as encoding is fed where "full" is asked."""

    @classmethod
    def for_source(cls, source: ActivationSource) -> Sequence["Metric"]:
        """What an evaluation of this source feeds; nothing where what the metric needs is not there.

        A metric that needs what no source knows (partners of features, a user's labels) is built by hand.
        """
        del source
        return ()

    @abstractmethod
    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        """Takes in one batch and the dictionary's output on it."""

    @abstractmethod
    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        """Scores by name, over everything seen since construction."""

    def units(self, sae: AbstractDictionary) -> dict[str, ScoreUnits]:
        """By score name, the values whose mean the score is: what two SAEs are compared by. None for most scores."""
        del sae
        return {}
