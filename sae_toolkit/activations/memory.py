"""What a source takes of the machine's memory, so that a run can be refused before it is begun."""

from abc import ABC, abstractmethod
from typing import NamedTuple


class MemoryPart(NamedTuple):
    """One thing that a source keeps in memory."""

    name: str
    """What it is, as a table says it: "model weights", "shuffle buffer"."""
    bytes: int
    held: bool
    """In memory once the source is built and a first batch was read; False: fills while a stream is read further."""
    device: str = "cpu"
    """Where it lies: "cpu" or "cuda"."""


class WeighsBeforeLoading(ABC):
    """A config of something heavy whose size can be known before it is loaded."""

    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes of memory that its weights will take; 0 where that cannot be known without loading them."""
