"""The whole state of a run between two steps, and the contract of whoever keeps it."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_toolkit.differences import differences
from sae_toolkit.saes.base import AbstractSAE


@dataclass(frozen=True, kw_only=True)
class TrainingSnapshot:
    """Everything needed to go on exactly: restored, the run continues bit for bit."""

    step: int
    """Optimizer updates done."""
    setup: Mapping[str, Any]
    """Training config, source description and SAE configs as JSON; a resumed run must have the same."""
    stream: Mapping[str, Any]
    """Position of the activation stream."""
    weights: Mapping[str, Mapping[str, Tensor]]
    """Per SAE its state dict."""
    learners: Mapping[str, Mapping[str, Tensor]]
    """Per SAE its optimizer moments, dead-latent counters and sparsity control."""


class CheckpointKeeper(ABC):
    """Decides when a run is saved, and saves it. Neither may change the run."""

    @abstractmethod
    def is_due(self, *, samples_before: int, samples_after: int) -> bool:
        """Whether to save after the update that took the run from one number of samples to the other."""

    @abstractmethod
    def save(self, snapshot: TrainingSnapshot, saes: Mapping[str, AbstractSAE]) -> Path:
        """Writes all of it or nothing, and says where; raises OSError when the disk refuses."""


def refuse_other_setup(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """A run is only resumed with the setup it was started with; otherwise a ValueError with the difference."""
    found = differences(saved, json.loads(json.dumps(asked)))
    if found:
        raise ValueError(
            "resume: this checkpoint belongs to another setup. " + "; ".join(found) + ". "
            "Resume with the saved setup, or start a new run in another folder."
        )
