"""What a cache of activations is on disk: whole shards of several groups, and a sealed JSON file that lists them.

    shard-00000.safetensors   activations [n d_in], three labels [n], excluded [n]: bit r is set where reason r holds
    index.json                source, sites, dtype, windows, reasons; bytes, SHA-256 and group sizes of every shard
    progress.json             the same while the cache is being written, of the shards there are

Groups lie in the shards in one order: train before eval, window by window, group by group.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae_toolkit.activations.shuffle import LABELS, GroupReader, GroupRows, windows_of_pass
from sae_toolkit.activations.source import Split
from sae_toolkit.atomic_write import UNFINISHED, fsync

SCHEMA_VERSION = 1
INDEX_FILE, PROGRESS_FILE = "index.json", "progress.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""How activations may be stored."""
SPLITS: tuple[Split, ...] = ("train", "eval")
MEGABYTE = 10**6
MAX_REASONS = 8
"""One bit each in a byte per sample."""


def stored_bytes(d_in: int, dtype: str) -> int:
    """Bytes of one sample on disk: its activations, three labels, and the byte that says why it is left out."""
    return d_in * DTYPES[dtype].itemsize + 8 * len(LABELS) + 1


def plan_windows(reader: GroupReader) -> dict[str, list[dict[str, Any]]]:
    """All windows of both splits, JSON-ready."""
    return {
        split: [{"start": start, **extent._asdict()} for start, extent in windows_of_pass(reader, split)]
        for split in SPLITS
    }


def groups_in_order(windows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[Split, int, int]]:
    """Split, window and number of every group, in the order in which groups lie in the shards."""
    for split in SPLITS:
        for window in windows[split]:
            for group in range(window["n_groups"]):
                yield split, window["start"], group


def to_columns(rows: GroupRows, *, dtype: str, where: str) -> dict[str, Tensor]:
    """A group as a shard holds it. An activation that the type cannot hold is a ValueError that says where."""
    activations = rows.activations.detach().cpu().float()
    if not bool(activations.isfinite().all()):
        raise ValueError(f"build_cache: {where} holds NaN or infinity, which no SAE can be trained on.")
    largest = float(activations.abs().max()) if activations.numel() else 0.0
    if largest > torch.finfo(DTYPES[dtype]).max:
        raise ValueError(
            f"build_cache: {where} holds {largest:.6g}, but {dtype} ends at {torch.finfo(DTYPES[dtype]).max:g}. Store "
            "the activations as bfloat16 or float32."
        )
    labels = {name: getattr(rows, name).cpu().long() for name in LABELS}
    return {"activations": activations.to(DTYPES[dtype]), **labels, "excluded": bits_of(rows)}


def bits_of(rows: GroupRows) -> UInt8[Tensor, " n"]:
    """The masks of all reasons in one byte per sample."""
    if len(rows.excluded_by) > MAX_REASONS:
        raise ValueError(f"build_cache: reasons {list(rows.excluded_by)} given, but only {MAX_REASONS} can be stored.")
    bits = torch.zeros(len(rows.token_ids), dtype=torch.uint8)
    for r, mask in enumerate(rows.excluded_by.values()):
        bits |= mask.cpu().to(torch.uint8) << r
    return bits


def masks_of(bits: UInt8[Tensor, " n"], reasons: Sequence[str]) -> dict[str, Bool[Tensor, " n"]]:
    """The inverse of `bits_of`."""
    return {reason: (bits >> r) % 2 == 1 for r, reason in enumerate(reasons)}


def write_shard(folder: Path, number: int, groups: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Writes one shard whole or not at all; what the index says of it: its name, bytes, SHA-256 and group sizes."""
    target = folder / f"shard-{number:05d}.safetensors"
    temporary = folder / f"{UNFINISHED}{target.name}-{os.getpid()}"
    columns = {name: torch.cat([group[name] for group in groups]) for name in groups[0]}
    try:
        save_file(columns, temporary)
        fsync(temporary)
        stamp = {"file": target.name, "bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
        temporary.replace(target)
        fsync(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sizes = [len(group["activations"]) for group in groups]
    # [size, how many in a row]: nearly all groups are alike, and the index stays short
    return {**stamp, "groups": [[size, len(list(alike))] for size, alike in groupby(sizes)]}


def group_sizes(shard: Mapping[str, Any]) -> list[int]:
    """Samples of each group of a shard."""
    return [size for size, repeats in shard["groups"] for _ in range(repeats)]


def read_columns(path: Path, first: int, last: int) -> dict[str, Tensor]:
    """Rows of every column of a shard, copied: the file is mapped only meanwhile, so no memory stays behind."""
    with safe_open(path, framework="pt") as shard:
        return {name: shard.get_slice(name)[first:last].clone() for name in shard.keys()}  # noqa: SIM118 (no mapping)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path, shard: Mapping[str, Any], *, every_byte: bool) -> str | None:
    """What is wrong with a shard (missing, cut, changed), or None; without `every_byte` only its size is looked at."""
    path = folder / shard["file"]
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != shard["bytes"]:
        return f"{path} is damaged: {size} bytes found, {shard['bytes']} written"
    if every_byte and file_sha256(path) != shard["sha256"]:
        return f"{path} is damaged: it was changed since it was written (its sha256 does not fit)"
    return None
