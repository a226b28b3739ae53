"""`sae-toolkit cache`: storing what a recipe's source reads, and looking at what was stored."""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sae_toolkit.recipe import Recipe

LONG = 16
"""Entries of a list that is worth a line."""


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """What `cache build` takes beside what every command on a recipe takes."""
    parser.add_argument("--cache", required=True, type=Path, help="its folder; a cache begun there is gone on with")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--shard_mb", type=int, default=256, help="size of one file, in 10^6 bytes")


def build(recipe: Recipe, config: Any, options: argparse.Namespace) -> list[str]:
    """Says how large the cache will be, writes it, and describes it; a source that cannot be stored is a ValueError."""
    from sae_toolkit.activations.cache import build_cache, cache_bytes  # noqa: PLC0415
    from sae_toolkit.run_folder import RunFolder  # noqa: PLC0415

    recipe.refuse_without_saes("cache build")
    with tempfile.TemporaryDirectory() as temporary, CacheProgress() as progress:
        source = recipe.module.make_source(config, RunFolder(Path(temporary)))
        n_bytes = cache_bytes(source, options.dtype)
        progress.say(f"{options.cache}: {n_bytes:,} bytes of {options.dtype} activations and labels will be stored")
        build_cache(source, options.cache, dtype=options.dtype, shard_mb=options.shard_mb, log=progress)
    return describe(options.cache)


def describe(folder: Path) -> list[str]:
    """Size, type, places and origin of a cache, a line each."""
    from sae_toolkit.activations.cache import cache_info  # noqa: PLC0415

    return leaves(cache_info(folder), "")


def leaves(value: Any, path: str) -> list[str]:
    """Every value of a nested description on a line of its own; a long list as its length."""
    if isinstance(value, Mapping) and value:
        return [line for key, inner in value.items() for line in leaves(inner, f"{path} / {key}".removeprefix(" / "))]
    if isinstance(value, list) and len(value) > LONG:
        return [f"{path} = [{len(value)} numbers]"]
    return [f"{path} = {value if isinstance(value, str) else json.dumps(value)}"]


def verify(folder: Path) -> list[str]:
    """Reads every byte; one that is not as it was written is a ValueError that names the file."""
    from sae_toolkit.activations.cache import verify_cache  # noqa: PLC0415

    verify_cache(folder)
    return [f"{folder}: every byte is as it was written"]


class CacheProgress:
    """Told after every shard how far a cache is: a live line on a terminal, a line per shard elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - slow to import, needed by whoever watches alone
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        self.progress = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
        self.task = self.progress.add_task("cache", total=None)

    def __enter__(self) -> "CacheProgress":
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """One line, whatever the terminal."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, record: Mapping[str, Any]) -> None:
        if record["event"] != "cache":
            self.say(record["message"])
            return
        self.progress.update(self.task, total=record["samples_total"], completed=record["samples"])
        if not self.console.is_terminal:
            self.say(
                f"cache {record['samples']:,}/{record['samples_total']:,} samples, {record['bytes']:,} bytes in "
                f"{record['shards']} shards"
            )
