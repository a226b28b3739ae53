"""The contract between where activations come from and everything that uses them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.sparse_rows import SparseRows

Split = Literal["train", "eval"]


class ActivationBatch(NamedTuple):
    """One batch of samples and whatever is known about them; what does not exist is None, never invented."""

    activations: Float[Tensor, "batch d_in"]
    token_ids: Int[Tensor, " batch"] | None = None
    positions: Int[Tensor, " batch"] | None = None
    document_ids: Int[Tensor, " batch"] | None = None
    coefficients: SparseRows | None = None
    """The truth, where it is known: `[batch n_features]`, how strongly each feature fired."""
    excluded: Mapping[str, int] = MappingProxyType({})
    """Samples left out since the previous batch, counted by reason."""


class ActivationStream(ABC, Iterator[ActivationBatch]):
    """One pass over a split. Restored from a saved state it yields bit for bit what it would have yielded."""

    @abstractmethod
    def __next__(self) -> ActivationBatch: ...

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, as JSON-ready values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a saved state; a state of another stream is a ValueError."""


class ActivationSource(ABC):
    """Where vectors come from. "train" and "eval" never share a sample, a document or a generator.

    A train stream never ends (a finite source starts over in a new order); an eval stream may end, each sample seen
    once.
    """

    @property
    @abstractmethod
    def d_in(self) -> int:
        """Length of one activation vector."""

    @abstractmethod
    def stream(self, batch_size: int, *, seed: int, split: Split) -> ActivationStream:
        """A new stream of batches of `batch_size` samples (the last batch of an eval stream may be smaller)."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Provenance as JSON-ready values; it goes into every checkpoint and report."""
