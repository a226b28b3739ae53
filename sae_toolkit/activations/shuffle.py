"""Seeded, resumable shuffling of activations that are read in groups: groups are permuted, then samples in a buffer."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationStream, Split
from sae_toolkit.activations.stream_state import check_identity
from sae_toolkit.seeding import derived_seed, generator_for

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9}
"""Bytes of a memory unit."""
LABELS = ("token_ids", "positions", "document_ids")
"""What is known about each sample, by its name in GroupRows and ActivationBatch."""


class WindowExtent(NamedTuple):
    """How far one window reaches."""

    n_groups: int
    """Groups in the window; 0 where its documents fill none."""
    next_start: int | None
    """Document at which the next window begins, above this one's; None: this window is the last of a pass."""
    n_samples: int
    """Samples of all its groups together, left-out ones included."""


class GroupRows(NamedTuple):
    """Every sample of one group, also those left out; labels and masks lie on one device."""

    activations: Float[Tensor, "n d_in"]
    token_ids: Int[Tensor, " n"]
    positions: Int[Tensor, " n"]
    document_ids: Int[Tensor, " n"]
    excluded_by: Mapping[str, Bool[Tensor, " n"]]
    """Samples to leave out, by reason; the same reasons in the same order in every group."""


class GroupReader(ABC):
    """Reads activations in groups (of one forward pass each), which lie in windows over documents.

    A window is named by the document it begins with; a pass over a split begins at document 0. A group holds the same
    samples, bit for bit, whenever it is read.
    """

    shuffle_buffer: str = "256 MB"
    """Memory in which samples of train streams are mixed, as `buffer_samples` reads it."""

    @property
    @abstractmethod
    def max_group_samples(self) -> int:
        """No group holds more samples, left-out ones included."""

    @abstractmethod
    def extent(self, split: Split, start: int) -> WindowExtent:
        """Of the window that begins at document `start`."""

    @abstractmethod
    def read_group_rows(self, split: Split, start: int, group: int) -> GroupRows:
        """All samples of one group."""

    def read_group(self, split: Split, start: int, group: int) -> ActivationBatch:
        """The samples of one group that are kept, as float32, with counts of the others; none may be left."""
        return kept_samples(self.read_group_rows(split, start, group))


def count_excluded(rows: GroupRows) -> tuple[Bool[Tensor, " n"], dict[str, int]]:
    """Which samples are left out, and how many by reason; one that two reasons hit is counted under the first."""
    hit = torch.zeros_like(rows.token_ids, dtype=torch.bool)
    excluded = {}
    for reason, mask in rows.excluded_by.items():
        excluded[reason] = int((mask & ~hit).sum())
        hit = hit | mask
    return hit, excluded


def kept_samples(rows: GroupRows) -> ActivationBatch:
    """Drops the excluded samples."""
    hit, excluded = count_excluded(rows)
    kept = (~hit).nonzero()[:, 0]
    device = rows.activations.device
    labels = {name: getattr(rows, name)[kept].long().to(device) for name in LABELS}
    activations = rows.activations.detach().index_select(0, kept.to(device)).float()
    return ActivationBatch(activations=activations, **labels, excluded=excluded)


def windows_of_pass(reader: GroupReader, split: Split) -> Iterator[tuple[int, WindowExtent]]:
    """The windows of one pass over a split: where each begins, and how far it reaches."""
    start: int | None = 0
    while start is not None:
        extent = reader.extent(split, start)
        assert extent.next_start is None or extent.next_start > start, f"a window at {start} leads to {extent}"
        yield start, extent
        start = extent.next_start


def buffer_samples(memory: str, bytes_per_sample: int) -> int:
    """How many samples fit in "256 MB" (10^6 bytes), "1.5 GB", "500 kB", or are meant by "65536 tokens"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(kb|mb|gb|tokens)\s*", memory, re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(
            f"shuffle buffer: {memory!r} given, but a number and a unit are needed: '500 kB', '256 MB', '1.5 GB' "
            "(10^3, 10^6, 10^9 bytes) or '65536 tokens'."
        )
    number, unit = Fraction(match[1]), match[2].lower()
    n_samples = number if unit == "tokens" else number * UNITS[unit] / bytes_per_sample
    if n_samples < 1 or (unit == "tokens" and n_samples != int(n_samples)):
        raise ValueError(
            f"shuffle buffer: {memory!r} given, which is {float(n_samples):.3g} samples of {bytes_per_sample} bytes. "
            "Give room for whole samples, for example '256 MB' or '65536 tokens'."
        )
    return int(n_samples)


def buffered_bytes(d_in: int) -> int:
    """Bytes that one sample takes in the shuffle buffer: float32 activations, three labels and its place in line."""
    return 4 * d_in + 8 * len(LABELS) + 8


class Position(NamedTuple):
    """Where a stream stands; everything before is given."""

    window: int = 0
    """Windows finished, over all passes."""
    start: int = 0
    """Document with which the current window begins."""
    block: int = 0
    """Blocks of the window finished."""
    offset: int = 0
    """Samples of the current block given."""


class Block(NamedTuple):
    """What is in memory at a time: samples, and the order in which they are given."""

    samples: Mapping[str, Tensor]
    order: Int[Tensor, " n"]
    excluded: Mapping[str, int]


class ShuffledStream(ActivationStream):
    """Train: windows one after the other without end, the groups of each in a new order, samples mixed in a buffer.

    Eval: one pass in order, group by group, without a buffer. The state is a position; restored, only the block in
    which the stream stood is read again. The blocks of the first window grow from one group to the whole buffer, so
    that the first batch does not wait for all of it.
    """

    def __init__(
        self,
        reader: GroupReader,
        identity: Mapping[str, Any],
        *,
        buffer_samples: int,
        batch_size: int,
        seed: int,
        split: Split,
    ) -> None:
        """`identity` names the source and its content, JSON-ready; a state is loaded only where it is the same."""
        if split not in ("train", "eval"):
            raise ValueError(f'ShuffledStream: split={split!r} asked, but it is "train" or "eval".')
        if batch_size < 1:
            raise ValueError(f"ShuffledStream: batch_size={batch_size} asked, but at least 1 is needed.")
        if split == "train" and buffer_samples < reader.max_group_samples:
            raise ValueError(
                f"ShuffledStream: a shuffle buffer of {buffer_samples} samples asked, but one forward pass gives up to "
                f"{reader.max_group_samples}. Give a larger buffer, or fewer rows per forward pass."
            )
        self.reader, self.batch_size, self.seed = reader, batch_size, seed
        self.split: Split = split
        self.buffer_samples = buffer_samples
        self.identity = {
            **identity,
            "buffer_samples": buffer_samples,
            "batch_size": batch_size,
            "seed": seed,
            "split": split,
        }
        self.buffer: dict[str, Tensor] = {}
        self.position = Position()
        self.block: Block | None = None
        self.pass_kept_none = False

    def __next__(self) -> ActivationBatch:
        pieces: list[dict[str, Tensor]] = []
        excluded: Counter[str] = Counter()
        wanted = self.batch_size
        while wanted > 0 and (block := self.block_with_samples(excluded)) is not None:
            if self.position.offset == 0:
                excluded.update(block.excluded)
            chosen = block.order[self.position.offset :][:wanted]
            pieces.append({name: column.index_select(0, chosen) for name, column in block.samples.items()})
            wanted -= len(chosen)
            self.position = self.position._replace(offset=self.position.offset + len(chosen))
            if self.position.offset == len(block.order):
                self.advance()
        if not pieces:
            raise StopIteration
        if self.split == "eval":
            self.block_with_samples(excluded)  # groups that keep nothing at the end go with the last batch
        joined = pieces[0] if len(pieces) == 1 else {name: torch.cat([p[name] for p in pieces]) for name in pieces[0]}
        columns: dict[str, Any] = joined
        return ActivationBatch(**columns, excluded=dict(excluded))

    def block_with_samples(self, excluded: Counter[str]) -> Block | None:
        """The block to go on with; None at the end of eval. What blocks without samples left out is added."""
        while self.split == "train" or self.position.window == 0 or self.position.start > 0:
            if self.block is None:
                self.block = self.read_block()
                if 0 < self.position.offset >= len(self.block.order):
                    raise ValueError(
                        f"ShuffledStream: a state with offset={self.position.offset} given, but its block holds "
                        f"{len(self.block.order)} samples. The text is not the one that was saved; start a new stream."
                    )
            if len(self.block.order) > 0:
                self.pass_kept_none = False
                return self.block
            excluded.update(self.block.excluded)
            self.advance()
        return None

    def advance(self) -> None:
        """On to the next block, window or pass; a whole pass without a sample is a ValueError."""
        at, extent = self.position, self.reader.extent(self.split, self.position.start)
        self.block = None
        if self.first_group(at.block + 1) < extent.n_groups:
            self.position = at._replace(block=at.block + 1, offset=0)
            return
        if extent.next_start is None and self.pass_kept_none:
            raise ValueError(
                f"ShuffledStream: a whole pass over the {self.split} split gave no sample: there is no text in it, or "
                "every token is left out. Exclude less or give more text."
            )
        self.position = Position(window=at.window + 1, start=extent.next_start or 0)

    def first_group(self, block: int) -> int:
        """How many groups of the current window come before a block."""
        if self.split == "eval":
            return block
        full = self.buffer_samples // self.reader.max_group_samples
        if self.position.window > 0:
            return block * full
        growing = (full - 1).bit_length()  # blocks of 1, 2, 4, ... groups, as long as that is less than full
        return (1 << min(block, growing)) - 1 + max(0, block - growing) * full

    def read_block(self) -> Block:
        """The block at which the stream stands, from its first sample on."""
        at, extent = self.position, self.reader.extent(self.split, self.position.start)
        if at.start == 0 and at.block == 0:
            self.pass_kept_none = True
        first, last = self.first_group(at.block), self.first_group(at.block + 1)
        if self.split == "eval":
            return self.block_in_order(range(extent.n_groups)[first:last])
        window_seed = derived_seed(self.seed, f"window {at.window}")
        groups = torch.randperm(extent.n_groups, generator=generator_for(window_seed, "group order"))
        samples, n, excluded = self.fill_buffer(groups[first:last].tolist())
        order = torch.randperm(n, generator=generator_for(window_seed, "sample order", at.block))
        return Block(samples, order.to(samples["activations"].device) if samples else order, excluded)

    def block_in_order(self, groups: range) -> Block:
        """One group as it is; nothing where a window has none."""
        if not groups:
            return Block({}, torch.arange(0), {})
        batch = self.reader.read_group(self.split, self.position.start, groups[0])
        order = torch.arange(len(batch.activations), device=batch.activations.device)
        return Block({name: getattr(batch, name) for name in ("activations", *LABELS)}, order, batch.excluded)

    def fill_buffer(self, groups: list[int]) -> tuple[dict[str, Tensor], int, Counter[str]]:
        """Reads groups over what the buffer held; the buffer, how many samples it now holds, and what was left out."""
        n, excluded = 0, Counter[str]()
        for group in groups:
            batch = self.reader.read_group(self.split, self.position.start, group)
            if not self.buffer:
                device, d_in = batch.activations.device, batch.activations.shape[1]
                self.buffer = {
                    name: torch.empty(self.buffer_samples, dtype=torch.int64, device=device) for name in LABELS
                } | {"activations": torch.empty(self.buffer_samples, d_in, dtype=torch.float32, device=device)}
            end = n + len(batch.activations)
            assert end <= self.buffer_samples, f"group {group} holds more than {self.reader.max_group_samples} samples"
            for name, column in self.buffer.items():
                column[n:end] = getattr(batch, name)
            excluded.update(batch.excluded)
            n = end
        return self.buffer, n, excluded

    def state_dict(self) -> dict[str, Any]:
        return {**self.identity, **self.position._asdict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_identity("ShuffledStream", self.identity, state, position=Position._fields)
        self.position = Position(**{name: state[name] for name in Position._fields})
        self.block, self.pass_kept_none = None, False
