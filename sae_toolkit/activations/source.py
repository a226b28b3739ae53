"""The contract between where activations come from and everything that uses them."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.memory import MemoryPart
from sae_toolkit.sparse_rows import SparseRows

Split = Literal["train", "eval"]

Site = str | tuple[str, ...]
"""The name of a place that a source reads, or of several that stand side by side in it."""


class WholeRows(NamedTuple):
    """Rows of text as a language model reads them, and which of their tokens the samples of a batch are."""

    tokens: Int[Tensor, "rows context"]
    kept: Bool[Tensor, "rows context"]
    """The kept tokens, row after row, are the samples of the batch in their order."""


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
    targets: Float[Tensor, "batch d_out"] | None = None
    """What a transcoder is to predict from `activations`; None: the activations themselves."""
    token_rows: WholeRows | None = None
    """The text of the samples, where they are the kept tokens of whole rows."""

    def wanted(self) -> Float[Tensor, "batch d_out"]:
        """What a reconstruction is held against."""
        return self.activations if self.targets is None else self.targets


class TextRows(NamedTuple):
    """Whole rows of text as a model read them, one after the other, with the tokens that streams leave out."""

    activations: Float[Tensor, "rows context d_in"]
    token_ids: Int[Tensor, "rows context"]
    document_ids: Int[Tensor, "rows context"]
    kept: Bool[Tensor, "rows context"]
    """False for what streams leave out."""
    excluded: Mapping[str, int] = MappingProxyType({})
    """How many are left out, by reason."""
    coefficients: SparseRows | None = None
    """The truth, where it is known: `[rows context n_features]`."""
    beside: Mapping[str, Float[Tensor, "rows context _"]] = MappingProxyType({})
    """Activations of the same tokens at other places that were asked for, by name."""


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

    @property
    def sites(self) -> Mapping[str, int]:
        """The places each sample is read at, with their widths, in the order of their columns in `activations`."""
        return {"activations": self.d_in}

    def columns(self, site: Site) -> slice:
        """The columns of `activations` that one site fills, or several that stand side by side, in their order."""
        if not isinstance(site, str):
            parts = [self.columns(name) for name in site]
            if not parts or any(left.stop != right.start for left, right in pairwise(parts)):
                raise ValueError(
                    f"{type(self).__name__}: sites {site} asked, but it reads {tuple(self.sites)}. Several sites must "
                    f"be named in that order, none left out in between."
                )
            return slice(parts[0].start, parts[-1].stop)
        if site not in self.sites:
            near = difflib.get_close_matches(site, self.sites, n=1, cutoff=0.0)
            raise ValueError(f"{type(self).__name__}: it has no site {site!r}. Did you mean {near[0]!r}?")
        start = 0
        for name, width in self.sites.items():
            if name == site:
                break
            start += width
        return slice(start, start + self.sites[site])

    @abstractmethod
    def stream(self, batch_size: int, *, seed: int, split: Split) -> ActivationStream:
        """A new stream of batches of `batch_size` samples (the last batch of an eval stream may be smaller)."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Provenance as JSON-ready values; it goes into every checkpoint and report."""

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        """What the source holds or will hold in memory, by part; a small source need not say."""
        return ()

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows] | None:
        """The text of the eval split, row by row, in the order of its streams; None where samples are no running text.

        The same rows on every call. `beside` names further places (`neuron_hooks`) to read in the same pass.
        """
        del beside
        return None

    @property
    def neuron_hooks(self) -> Mapping[str, str]:
        """By site, the place of the MLP neurons that were computed last before it; nothing where none can be read."""
        return {}

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The features whose `coefficients` every batch carries; None where it is unknown what fires."""
        return None

    @property
    def hierarchy_pairs(self) -> Int[Tensor, "n_pairs 2"] | None:
        """Rows (parent, child) of features of which the child fires only with its parent; None without a hierarchy."""
        return None

    @property
    def token_texts(self) -> Sequence[str] | None:
        """The text of every token id, leading space included; None where samples are no tokens or have no text."""
        return None


class KnownFeatures(ActivationSource):
    """A source whose features are known: every batch carries its `coefficients`, in the order of `directions`.

    Up to what `describe` calls noise, activations = coefficients @ directions + bias, with coefficients at least 0.
    Whoever implements it is scored against the truth, gets its ceilings and is drawn with it.
    """

    @property
    @abstractmethod
    def directions(self) -> Float[Tensor, "n_features d_in"]:
        """The true feature directions, unit rows."""

    @property
    def bias(self) -> Float[Tensor, " d_in"] | None:
        """What is added to every sample; None for nothing."""
        return None

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"feature {i}" for i in range(self.directions.shape[0]))


Replacement = Callable[[Tensor], Tensor]
"""Activations `[n d_in]` in, what the model goes on with instead out: an SAE's reconstruction, zeros, a mean."""


class TokenLosses(NamedTuple):
    """What a language model predicts after some tokens, one entry per token."""

    nll: Float[Tensor, " n_tokens"]
    """Negative log-likelihood of the next token, in nats."""
    kl: Float[Tensor, " n_tokens"]
    """KL divergence from the untouched model's next-token distribution to this one's, in nats."""
    document_ids: Int[Tensor, " n_tokens"]


class SplicingSource(ActivationSource):
    """A source whose activations come from a language model, into which something else can be spliced."""

    @abstractmethod
    def losses_with(
        self,
        replacements: Mapping[str, Replacement],
        *,
        n_tokens: int,
        site: str | None = None,
        target: str | None = None,
    ) -> Iterator[dict[str, TokenLosses]]:
        """Losses on about n_tokens held-out tokens, chunk by chunk: "clean", then one entry per replacement.

        The same tokens, in the same order, on every call. Tokens that training leaves out keep their activations and
        are not counted. `site` may be left out where there is only one. A replacement is given the activations at
        `site`, and what it returns takes the place of those at `target`, which is `site` itself where none is named.
        """

    @property
    def written(self) -> "SplicingSource":
        """The source seen at the place where replacements act."""
        return self
