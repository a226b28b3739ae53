"""Writing of a cache, shard by shard: a killed write goes on where it stood and ends with the same files."""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_toolkit.activations.cache_files import (
    DTYPES,
    INDEX_FILE,
    MEGABYTE,
    PROGRESS_FILE,
    SCHEMA_VERSION,
    SPLITS,
    damage,
    group_sizes,
    groups_in_order,
    plan_windows,
    stored_bytes,
    to_columns,
    write_shard,
)
from sae_toolkit.activations.shuffle import GroupReader
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.atomic_write import UNFINISHED, atomic_write_text
from sae_toolkit.differences import differences, without_labels
from sae_toolkit.sealed_files import read_sealed, sealed

Log = Callable[[dict[str, Any]], None]


def as_reader(source: ActivationSource) -> GroupReader:
    """The source as what it must be to be cached."""
    if not isinstance(source, GroupReader):
        raise ValueError(
            f"build_cache: a {type(source).__name__} given, but only a source that reads a language model in groups "
            "can be stored (TransformerSource)."
        )
    return source


def sites_in_order(source: ActivationSource) -> list[list[Any]]:
    """Names and widths as a list: in another order they are other columns."""
    return [[name, width] for name, width in source.sites.items()]


def check_dtype(dtype: str) -> None:
    """Refuses what activations cannot be stored as."""
    if dtype not in DTYPES:
        raise ValueError(f"cache: dtype={dtype!r} asked, but activations are stored as one of {', '.join(DTYPES)}.")


def write_cache(source: ActivationSource, folder: Path, *, dtype: str, shard_mb: int, log: Log) -> None:
    """Writes what of a cache is not there yet; nothing where it is whole."""
    reader = as_reader(source)
    check_dtype(dtype)
    if shard_mb < 1:
        raise ValueError(f"build_cache: shard_mb={shard_mb} asked, but at least 1 is needed.")
    header = {
        "schema_version": SCHEMA_VERSION,
        "source": json.loads(json.dumps(source.describe())),
        "sites": sites_in_order(source),
        "dtype": dtype,
        "shard_mb": shard_mb,
        "max_group_samples": reader.max_group_samples,
        "windows": plan_windows(reader),
    }
    refuse_foreign_folder(folder)
    if (folder / INDEX_FILE).exists():
        refuse_other(folder, read_sealed(folder / INDEX_FILE, SCHEMA_VERSION), header)
        (folder / PROGRESS_FILE).unlink(missing_ok=True)  # there where the writer was killed after its very last file
        return
    ShardWriter(reader, folder, header, source.d_in, log).write()


def refuse_foreign_folder(folder: Path) -> None:
    """A cache is written where nothing is, or where a cache was begun."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"build_cache: {folder} is a file. Choose a new folder.")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(UNFINISHED))
    if names and not {INDEX_FILE, PROGRESS_FILE} & set(names):
        raise ValueError(
            f"build_cache: {folder} holds {', '.join(names[:3])}, which belongs to no cache. Choose a new folder."
        )


def refuse_other(folder: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """A folder keeps the cache that was begun in it; another one is a ValueError with the differences."""
    found = [
        line for key in asked for line in differences(without_labels(stored.get(key)), without_labels(asked[key]), key)
    ]
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(
            f"build_cache: {folder} holds another cache. {'; '.join(found[:5])}{more}. Choose another folder, or ask "
            "for what is stored."
        )


class ShardWriter:
    """The shards of one cache in the making, and progress.json beside them."""

    def __init__(self, reader: GroupReader, folder: Path, header: Mapping[str, Any], d_in: int, log: Log) -> None:
        self.reader, self.folder, self.header, self.log = reader, folder, dict(header), log
        self.sample_bytes = stored_bytes(d_in, header["dtype"])
        self.n_samples = sum(window["n_samples"] for split in SPLITS for window in header["windows"][split])
        self.shards: list[dict[str, Any]] = []
        self.reasons: list[str] | None = None
        self.pending: list[dict[str, Tensor]] = []

    def write(self) -> None:
        """All that is missing, the index last."""
        if self.n_samples == 0:
            raise ValueError("build_cache: the source has no sample. Give more text.")
        if (self.folder / PROGRESS_FILE).exists():
            self.resume()
        self.refuse_full_disk()
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{UNFINISHED}*"):
            leftover.unlink()
        self.record_progress()
        n_done = sum(len(group_sizes(shard)) for shard in self.shards)
        for split, start, group in islice(groups_in_order(self.header["windows"]), n_done, None):
            rows = self.reader.read_group_rows(split, start, group)
            where = f"group {group} of the {split} window at document {start}"
            self.check_reasons(list(rows.excluded_by), where)
            self.add(to_columns(rows, dtype=self.header["dtype"], where=where))
        self.flush()
        if self.samples_done() != self.n_samples:
            raise ValueError(
                f"build_cache: the source announced {self.n_samples} samples and gave {self.samples_done()}. It does "
                "not read the same text each time; give it text that stays."
            )
        written_by = {name: version(name) for name in ("sae-toolkit", "torch", "safetensors")}
        atomic_write_text(self.folder / INDEX_FILE, sealed({**self.contents(), "written_by": written_by}))
        (self.folder / PROGRESS_FILE).unlink()

    def contents(self) -> dict[str, Any]:
        """What index.json and progress.json say."""
        return {**self.header, "reasons": self.reasons, "shards": self.shards}

    def record_progress(self) -> None:
        """progress.json as of now, and a line for the log."""
        atomic_write_text(self.folder / PROGRESS_FILE, sealed(self.contents()))
        done = self.samples_done()
        self.log(
            {
                "event": "cache",
                "shards": len(self.shards),
                "samples": done,
                "samples_total": self.n_samples,
                "bytes": done * self.sample_bytes,
                "bytes_total": self.n_samples * self.sample_bytes,
            }
        )

    def samples_done(self) -> int:
        """Samples in finished shards."""
        return sum(sum(group_sizes(shard)) for shard in self.shards)

    def resume(self) -> None:
        """Takes over the shards of a killed write, up to the first one that is not what was written."""
        progress = read_sealed(self.folder / PROGRESS_FILE, SCHEMA_VERSION)
        refuse_other(self.folder, progress, self.header)
        self.reasons = progress["reasons"]
        for shard in progress["shards"]:
            found = damage(self.folder, shard, every_byte=True)
            if found is not None:
                self.log({"event": "cache_damage", "message": f"{found}; written again from here"})
                break
            self.shards.append(shard)

    def refuse_full_disk(self) -> None:
        """Compares what is still to be written with what the disk has left."""
        needed = (self.n_samples - self.samples_done()) * self.sample_bytes
        place = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise ValueError(
                f"build_cache: {needed / 1e9:.3f} GB are needed in {self.folder} and {free / 1e9:.3f} GB are free. "
                "Choose another disk, a two-byte dtype, fewer sites or fewer tokens."
            )

    def check_reasons(self, reasons: list[str], where: str) -> None:
        """The reasons of the first group stand for all."""
        if self.reasons is None:
            self.reasons = reasons
        if reasons != self.reasons:
            raise ValueError(
                f"build_cache: {where} leaves out by {reasons}, earlier groups by {self.reasons}. A source must name "
                "the same reasons in every group, also those that hit nothing."
            )

    def add(self, group: dict[str, Tensor]) -> None:
        """One more group, in a new shard where the current one is full."""
        n_pending = sum(len(each["activations"]) for each in self.pending)
        if (n_pending + len(group["activations"])) * self.sample_bytes > self.header["shard_mb"] * MEGABYTE:
            self.flush()
        self.pending.append(group)

    def flush(self) -> None:
        """Writes the pending groups as a shard."""
        if self.pending:
            self.shards.append(write_shard(self.folder, len(self.shards), self.pending))
            self.pending = []
            self.record_progress()
