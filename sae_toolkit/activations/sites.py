"""One site of a source that reads several: a source of its own, over the same samples."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.memory import MemoryPart
from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream, Site, Split, TextRows


class SiteSource(ActivationSource):
    """The columns of one site, or of several: what metrics, controls and reports of their SAEs are given.

    With a `target`, another site, its batches carry that one's columns as `targets`, which a transcoder predicts.
    """

    def __init__(self, whole: ActivationSource, site: Site, *, target: str | None = None) -> None:
        self.whole, self.site, self.target = whole, site, target
        self.chosen = whole.columns(site)
        self.wanted = None if target is None else whole.columns(target)

    @property
    def d_in(self) -> int:
        names = (self.site,) if isinstance(self.site, str) else self.site
        return sum(self.whole.sites[name] for name in names)

    @property
    def sites(self) -> Mapping[str, int]:
        return super().sites if isinstance(self.site, str) else {name: self.whole.sites[name] for name in self.site}

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "SiteStream":
        return SiteStream(self.whole.stream(batch_size, seed=seed, split=split), self.chosen, self.wanted)

    def describe(self) -> dict[str, Any]:
        site = self.site if isinstance(self.site, str) else list(self.site)
        return {**self.whole.describe(), "site": site, **({} if self.target is None else {"target": self.target})}

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        return self.whole.memory_bytes()

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows] | None:
        rows = self.whole.held_out_rows(beside=beside)
        return None if rows is None else (row._replace(activations=row.activations[..., self.chosen]) for row in rows)

    @property
    def neuron_hooks(self) -> Mapping[str, str]:
        hooks = self.whole.neuron_hooks
        return dict.fromkeys(self.sites, hooks[self.site]) if isinstance(self.site, str) and self.site in hooks else {}

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
    """The whole stream, of which some columns are shown, and some as what is to be predicted."""

    def __init__(self, whole: ActivationStream, chosen: slice, wanted: slice | None) -> None:
        self.whole, self.chosen, self.wanted = whole, chosen, wanted

    def __next__(self) -> ActivationBatch:
        batch = next(self.whole)
        targets = None if self.wanted is None else batch.activations[:, self.wanted]
        return batch._replace(activations=batch.activations[:, self.chosen], targets=targets)

    def state_dict(self) -> dict[str, Any]:
        return self.whole.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.whole.load_state_dict(state)
