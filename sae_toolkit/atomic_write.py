"""Files and folders that appear whole or not at all, whatever kills the process in between."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `target`; on leaving it is fsynced and renamed to `target`.

    An existing `target` is replaced. On an exception (disk full, no permission) the temporary folder is removed and
    `target` is left as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f"{UNFINISHED}{target.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            fsync(path)
        fsync(temporary)
        replaced = target.parent / f"{UNFINISHED}replaced-{target.name}-{os.getpid()}"
        if target.exists():
            target.rename(replaced)
        try:
            temporary.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise
        fsync(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def atomic_write_bytes(target: Path, content: bytes) -> None:
    """Writes a whole file or leaves what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f"{UNFINISHED}{target.name}-{os.getpid()}"
    try:
        temporary.write_bytes(content)
        fsync(temporary)
        temporary.replace(target)
        fsync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_text(target: Path, text: str) -> None:
    """`atomic_write_bytes` of UTF-8."""
    atomic_write_bytes(target, text.encode("utf-8"))


def fsync(path: Path) -> None:
    """Waits until the disk has a file's contents, or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
