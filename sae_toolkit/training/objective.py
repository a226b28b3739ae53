"""A loss that is not a matter of the SAE alone, because it depends on where its activations come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, Site
from sae_toolkit.saes.base import SAEOutput


class Objective(ABC):
    """What is minimised instead of the sum of an SAE's own loss terms."""

    @abstractmethod
    def terms(
        self, own: Mapping[str, Float[Tensor, ""]], output: SAEOutput, batch: ActivationBatch, site: Site
    ) -> dict[str, Float[Tensor, ""]]:
        """Named and weighted terms, from the SAE's own ones, its output on a batch, and the site of that output."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-ready; a run is resumed only with the same."""
