"""One site of a source that reads several: a source of its own, over the same samples."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.memory import MemoryPart
from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream, Split, TextRows


class SiteSource(ActivationSource):
    """The columns of one site: what metrics, controls and reports of that site's SAEs are given."""

    def __init__(self, whole: ActivationSource, site: str) -> None:
        self.whole, self.site = whole, site
        self.chosen = whole.columns(site)

    @property
    def d_in(self) -> int:
        return self.whole.sites[self.site]

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "SiteStream":
        return SiteStream(self.whole.stream(batch_size, seed=seed, split=split), self.chosen)

    def describe(self) -> dict[str, Any]:
        return {**self.whole.describe(), "site": self.site}

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        return self.whole.memory_bytes()

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows] | None:
        rows = self.whole.held_out_rows(beside=beside)
        return None if rows is None else (row._replace(activations=row.activations[..., self.chosen]) for row in rows)

    @property
    def neuron_hooks(self) -> Mapping[str, str]:
        hooks = self.whole.neuron_hooks
        return dict.fromkeys(self.sites, hooks[self.site]) if self.site in hooks else {}

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        return self.whole.feature_names

    @property
    def hierarchy_pairs(self) -> Int[Tensor, "n_pairs 2"] | None:
        return self.whole.hierarchy_pairs

    @property
    def token_texts(self) -> Sequence[str] | None:
        return self.whole.token_texts


class SiteStream(ActivationStream):
    """The whole stream, of which one site's columns are shown."""

    def __init__(self, whole: ActivationStream, chosen: slice) -> None:
        self.whole, self.chosen = whole, chosen

    def __next__(self) -> ActivationBatch:
        batch = next(self.whole)
        return batch._replace(activations=batch.activations[:, self.chosen])

    def state_dict(self) -> dict[str, Any]:
        return self.whole.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.whole.load_state_dict(state)
