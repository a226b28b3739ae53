"""Activations of a language model kept on disk: the same streams, bit for bit, without running the model again."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.cache_files import (
    INDEX_FILE,
    PROGRESS_FILE,
    SCHEMA_VERSION,
    SPLITS,
    damage,
    file_sha256,
    group_sizes,
    groups_in_order,
    masks_of,
    read_columns,
    stored_bytes,
)
from sae_toolkit.activations.cache_writing import as_reader, check_dtype, sites_in_order, write_cache
from sae_toolkit.activations.memory import MemoryPart
from sae_toolkit.activations.shuffle import (
    LABELS,
    GroupReader,
    GroupRows,
    ShuffledStream,
    WindowExtent,
    buffer_samples,
    buffered_bytes,
    windows_of_pass,
)
from sae_toolkit.activations.source import ActivationSource, Split, TextRows
from sae_toolkit.activations.text_rows import cached_rows
from sae_toolkit.differences import differences, without_labels
from sae_toolkit.sealed_files import read_sealed


def cache_bytes(source: ActivationSource, dtype: Literal["float32", "float16", "bfloat16"]) -> int:
    """Exact bytes of activations and labels that a cache would hold (each shard adds about 500 of description)."""
    reader = as_reader(source)
    check_dtype(dtype)
    extents = [extent for split in SPLITS for _, extent in windows_of_pass(reader, split)]
    return sum(extent.n_samples for extent in extents) * stored_bytes(source.d_in, dtype)


def build_cache(
    source: ActivationSource,
    folder: str | Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    shard_mb: int = 256,
    log: Callable[[dict[str, Any]], None] | None = None,
) -> "CachedSource":
    """Stores all that a finite source reads, both splits, in shards of about `shard_mb` * 10^6 bytes.

    Called again after it was killed it goes on, and keeps a whole cache as it is. `log` is told, after every shard,
    how many samples and bytes there are and will be. A folder with anything else in it, too little disk and
    activations that `dtype` cannot hold are refused.
    """
    write_cache(source, Path(folder), dtype=dtype, shard_mb=shard_mb, log=log or ignore)
    return CachedSource(folder, shuffle_buffer=as_reader(source).shuffle_buffer, token_texts=source.token_texts)


def ignore(record: dict[str, Any]) -> None:
    """A log that keeps nothing."""


def cache_info(folder: str | Path) -> dict[str, Any]:
    """What a cache is of and how large it is, from its index alone."""
    index = read_index(Path(folder))
    return {
        "cache_sha256": index["cache_sha256"],
        "dtype": index["dtype"],
        "sites": dict(index["sites"]),
        "samples": {split: sum(window["n_samples"] for window in index["windows"][split]) for split in SPLITS},
        "shards": len(index["shards"]),
        "bytes": sum(shard["bytes"] for shard in index["shards"]),
        "excluded_by": index["reasons"],
        "source": index["source"],
        "written_by": index["written_by"],
    }


def verify_cache(folder: str | Path) -> None:
    """Reads every byte; a shard that is not what was written is refused by name."""
    check_shards(Path(folder), read_index(Path(folder)), every_byte=True)


def read_index(folder: Path) -> dict[str, Any]:
    """index.json with its own sha256, refused where it is damaged or the cache is unfinished."""
    if not (folder / INDEX_FILE).exists():
        if (folder / PROGRESS_FILE).exists():
            raise ValueError(f"CachedSource: {folder} is an unfinished cache. Build it again there: that goes on.")
        raise ValueError(f"CachedSource: {folder} has no {INDEX_FILE}, so it is no cache. Build one with build_cache.")
    contents = read_sealed(folder / INDEX_FILE, SCHEMA_VERSION)
    return {**contents, "cache_sha256": file_sha256(folder / INDEX_FILE)}


def check_shards(folder: Path, index: Mapping[str, Any], *, every_byte: bool) -> None:
    """Refuses a cache of which a shard is missing, cut or, where every byte is read, changed."""
    for shard in index["shards"]:
        found = damage(folder, shard, every_byte=every_byte)
        if found is not None:
            raise ValueError(f"CachedSource: {found}. Build the cache again in a new folder.")


class CachedSource(ActivationSource, GroupReader):
    """A cache on disk; what is in memory at a time is the index, one group and the shuffle buffer of a stream.

    A cache holds token ids, not their texts: those are known where the live source is at hand (`CachedSource.of`,
    `build_cache`) or where the caller gives them.
    """

    def __init__(
        self, folder: str | Path, *, shuffle_buffer: str = "256 MB", token_texts: Sequence[str] | None = None
    ) -> None:
        """Opens a finished cache; every shard must be there in its full size (`verify_cache` reads all of them)."""
        self.folder, self.shuffle_buffer, self.read_texts = Path(folder), shuffle_buffer, token_texts
        self.index = read_index(self.folder)
        check_shards(self.folder, self.index, every_byte=False)
        self.buffer_samples = buffer_samples(shuffle_buffer, buffered_bytes(self.d_in))
        self.extents = {
            (split, window["start"]): WindowExtent(window["n_groups"], window["next_start"], window["n_samples"])
            for split in SPLITS
            for window in self.index["windows"][split]
        }
        self.places, self.first_places = locate_groups(self.index)

    @classmethod
    def of(cls, source: ActivationSource, folder: str | Path) -> "CachedSource":
        """The cache of a live source, with its shuffle buffer; refused where it is of another one."""
        reader = as_reader(source)
        cached = cls(folder, shuffle_buffer=reader.shuffle_buffer, token_texts=source.token_texts)
        cached.check_against(source)
        return cached

    @property
    def d_in(self) -> int:
        return sum(self.sites.values())

    @property
    def sites(self) -> Mapping[str, int]:
        return dict(self.index["sites"])

    @property
    def token_texts(self) -> Sequence[str] | None:
        return self.read_texts

    @property
    def max_group_samples(self) -> int:
        return int(self.index["max_group_samples"])

    def extent(self, split: Split, start: int) -> WindowExtent:
        if (split, start) not in self.extents:
            raise ValueError(f"CachedSource: no {split} window of {self.folder} begins at document {start}.")
        return self.extents[split, start]

    def read_group_rows(self, split: Split, start: int, group: int) -> GroupRows:
        n_groups = self.extent(split, start).n_groups
        assert 0 <= group < n_groups, f"group {group} of {n_groups} asked"
        shard, first, last = self.places[self.first_places[split, start] + group].tolist()
        columns = read_columns(self.folder / self.index["shards"][shard]["file"], first, last)
        labels = {name: columns[name] for name in LABELS}
        masks = masks_of(columns["excluded"], self.index["reasons"])
        return GroupRows(columns["activations"].float(), **labels, excluded_by=masks)

    def stream(self, batch_size: int, *, seed: int, split: Split) -> ShuffledStream:
        identity = {"source": "CachedSource", "content_sha256": self.index["cache_sha256"]}
        return ShuffledStream(
            self, identity, buffer_samples=self.buffer_samples, batch_size=batch_size, seed=seed, split=split
        )

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows]:
        if beside:
            raise ValueError(
                f"CachedSource: {list(beside)} asked beside its sites, but it holds {list(self.sites)}. Read the model."
            )
        return cached_rows(self)

    def check_against(self, source: ActivationSource) -> None:
        """Refuses a cache made from something else than this source; what model and text are called is no matter."""
        described = json.loads(json.dumps(source.describe()))
        found = differences(without_labels(self.index["source"]), without_labels(described))
        found += differences(self.index["sites"], sites_in_order(source), "sites")
        found += differences(self.max_group_samples, as_reader(source).max_group_samples, "max_group_samples")
        if found:
            raise ValueError(
                f"CachedSource: the cache in {self.folder} is stale, it was made from something else. "
                f"{'; '.join(found)}. Build a new cache in another folder, or use what it was made from."
            )

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        largest = max(extent.n_samples for (split, _), extent in self.extents.items() if split == "train")
        filled = min(self.buffer_samples, largest)  # what no window fills is asked for, but never touched
        return (MemoryPart("shuffle buffer", filled * buffered_bytes(self.d_in), held=False),)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "CachedSource",
            "cache_sha256": self.index["cache_sha256"],
            "dtype": self.index["dtype"],
            "shuffle_buffer": self.shuffle_buffer,
            "of": deepcopy(self.index["source"]),
        }


def locate_groups(index: Mapping[str, Any]) -> tuple[Int[Tensor, "n_groups 3"], dict[tuple[Split, int], int]]:
    """Shard, first row and row after the last of every group; and the number of each window's first group."""
    places = []
    for number, shard in enumerate(index["shards"]):
        row = 0
        for size in group_sizes(shard):
            places.append((number, row, row + size))
            row += size
    first_places: dict[tuple[Split, int], int] = {}
    for place, (split, start, group) in enumerate(groups_in_order(index["windows"])):
        if group == 0:
            first_places[split, start] = place
    return torch.tensor(places, dtype=torch.int64).reshape(-1, 3), first_places
