"""Activations of a language model in whole rows of text, for losses that run the rest of the model."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from sae_toolkit.activations.memory import MemoryPart
from sae_toolkit.activations.packing import TokenRows
from sae_toolkit.activations.shuffle import LABELS, kept_samples
from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream, Split, WholeRows
from sae_toolkit.activations.stream_state import check_identity
from sae_toolkit.activations.transformer import TransformerSource
from sae_toolkit.seeding import derived_seed, generator_for

COUNTS = ("window", "start", "given")
"""Of a stream's state: windows finished, the document at which the current one begins, rows of it given."""


class WholeRowsSource(ActivationSource):
    """The samples of a `TransformerSource`, row of text by row of text, each batch with its rows.

    Rows come in a new order in each pass. The tokens of a row are neighbours, which makes a batch less varied than one
    of as many shuffled tokens. What a batch's last row holds beyond `batch_size` is left out ("batch_end").
    """

    def __init__(self, transformer: TransformerSource) -> None:
        self.transformer = transformer

    @property
    def d_in(self) -> int:
        return self.transformer.d_in

    @property
    def sites(self) -> Mapping[str, int]:
        return self.transformer.sites

    @property
    def token_texts(self) -> tuple[str, ...] | None:
        return self.transformer.token_texts

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "WholeRowsStream":
        self.transformer.text.check_rows(split)
        if batch_size < 1:
            raise ValueError(f"WholeRowsSource.stream: batch_size={batch_size} asked, but at least 1 is needed.")
        return WholeRowsStream(self.transformer, batch_size=batch_size, seed=seed, split=split)

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        return self.transformer.memory_bytes()

    def describe(self) -> dict[str, Any]:
        return {**self.transformer.describe(), "name": "WholeRowsSource"}


class WholeRowsStream(ActivationStream):
    """Window after window, the rows of each in an order of its own; eval: one pass in order."""

    def __init__(self, transformer: TransformerSource, *, batch_size: int, seed: int, split: Split) -> None:
        self.transformer, self.seed, self.batch_size = transformer, seed, batch_size
        self.split: Split = split
        self.identity = {
            "source": "WholeRowsSource",
            "content_sha256": transformer.content_sha256(),
            "batch_size": batch_size,
            "seed": seed,
            "split": split,
        }
        self.position = dict.fromkeys(COUNTS, 0)

    @property
    def ended(self) -> bool:
        """Whether eval has given its one pass."""
        return self.split == "eval" and self.position["window"] > 0 and self.position["start"] == 0

    def __next__(self) -> ActivationBatch:
        parts: list[ActivationBatch] = []
        missing, passes_begun = self.batch_size, 0
        while missing > 0 and not self.ended:
            passes_begun += self.position["start"] == 0 and self.position["given"] == 0
            if passes_begun > 2 and missing == self.batch_size:
                raise ValueError(
                    f"WholeRowsStream: a whole pass over the {self.split} split gave no sample, because every token is "
                    "left out. Exclude less or give more text."
                )
            at_least = -(-missing // self.transformer.text.config.context_length)
            rows = self.next_rows(at_least)
            if len(rows.tokens) > 0:
                parts.append(self.read(rows, missing))
                missing -= len(parts[-1].activations)
        if missing == self.batch_size:
            raise StopIteration
        return joined(parts)

    def next_rows(self, n: int) -> TokenRows:
        """The next rows of the current window, n at most; then on to the window after it."""
        window = self.transformer.text.window(self.split, self.position["start"])
        order = torch.arange(window.n_rows)
        if self.split == "train":
            window_seed = derived_seed(self.seed, f"window {self.position['window']}")
            order = torch.randperm(window.n_rows, generator=generator_for(window_seed, "row order"))
        chosen = order[self.position["given"] :][:n]
        self.position["given"] += len(chosen)
        if self.position["given"] >= window.n_rows:
            self.position = {"window": self.position["window"] + 1, "start": window.next_start or 0, "given": 0}
        return window.rows(chosen)

    def read(self, rows: TokenRows, most: int) -> ActivationBatch:
        """The first kept tokens of some rows, and the rows."""
        group = self.transformer.group_rows(
            rows, self.transformer.model.capture(rows.tokens, self.transformer.config.hooks)
        )
        left_out = torch.stack(list(group.excluded_by.values())).any(dim=0)
        beyond = (~left_out).cumsum(0) > most
        batch = kept_samples(group._replace(excluded_by={**group.excluded_by, "batch_end": beyond}))
        return batch._replace(token_rows=WholeRows(rows.tokens, ~(left_out | beyond).view(rows.tokens.shape)))

    def state_dict(self) -> dict[str, Any]:
        return {**self.identity, **self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_identity("WholeRowsStream", self.identity, state, position=COUNTS)
        self.position = {name: state[name] for name in COUNTS}


def joined(parts: list[ActivationBatch]) -> ActivationBatch:
    """Several batches as one."""
    excluded: Counter[str] = Counter()
    rows = []
    for part in parts:
        excluded.update(part.excluded)
        assert part.token_rows is not None
        rows.append(part.token_rows)
    columns: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in ("activations", *LABELS)
    }
    tokens, kept = (torch.cat([getattr(one, name) for one in rows]) for name in ("tokens", "kept"))
    return ActivationBatch(**columns, excluded=dict(excluded), token_rows=WholeRows(tokens, kept))
