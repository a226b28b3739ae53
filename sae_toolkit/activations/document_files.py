"""Documents out of local files, streamed: .txt, .jsonl, .json, .parquet and token ids in .npy."""

import difflib
import glob
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

Document = str | np.ndarray
"""A text, or token ids `[n_tokens]` of some integer type."""

CHUNK_CHARACTERS = 1 << 20
HASHED_BYTES = 1 << 20


def as_document(value: Any, where: str) -> Document:
    """A text as it is, integers as one array `[n_tokens]`; anything else is a ValueError that says where it stands."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(type(item) is int for item in value):
        return np.array(value, dtype=np.int64)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim == 1 and np.issubdtype(value.dtype, np.integer):
        return value
    given = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"{type(value).__name__}"
    raise ValueError(
        f"documents: {where} is {given} ({str(value)[:60]!r}), but a document is a text or a 1-D array of token ids. "
        "Name the field that holds the text, or convert it first."
    )


def check_field(field: str, known: Iterable[str], where: str) -> None:
    """A ValueError that names the fields there are, and the nearest one, where `field` is not among them."""
    names = [str(name) for name in known]
    if field not in names:
        near = difflib.get_close_matches(field, names, n=1, cutoff=0.0)
        hint = f" Did you mean text_field={near[0]!r}?" if near else ""
        raise ValueError(f"documents: {where} has no field {field!r}, it has {', '.join(names) or 'none'}.{hint}")


def document_of(row: Any, text_field: str, where: str) -> Document:
    """The document in one JSON value: the value itself, or its field `text_field` where it is an object."""
    if isinstance(row, Mapping):
        check_field(text_field, row, where)
        row = row[text_field]
    return as_document(row, where)


def split_text(chunks: Iterable[str], separator: str) -> Iterator[str]:
    """What lies between separators, wherever the chunks are cut; time and memory are linear in the longest piece."""
    held: list[str] = []
    tail = ""
    for chunk in chunks:
        *whole, rest = (tail + chunk).split(separator)
        for piece in whole:
            yield "".join(held) + piece
            held = []
        cut = max(0, len(rest) - len(separator) + 1)  # only the last characters may be part of a separator
        held.append(rest[:cut])
        tail = rest[cut:]
    yield "".join(held) + tail


def read_txt(path: Path, text_field: str, separator: str) -> Iterator[Document]:
    """The stripped, non-empty pieces between separators; the whole file where there is none."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for piece in split_text(iter(lambda: file.read(CHUNK_CHARACTERS), ""), separator):
                if stripped := piece.strip():
                    yield stripped
    except UnicodeDecodeError as error:
        raise ValueError(f"documents: {path} is not UTF-8 text ({error.reason}). Convert it to UTF-8.") from error


def read_jsonl(path: Path, text_field: str, separator: str) -> Iterator[Document]:
    """One JSON value per line; blank lines are no documents."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"documents: {path}:{number} is no JSON value ({error}). Mend the line.") from error
            yield document_of(row, text_field, f"{path}:{number}")


def read_json(path: Path, text_field: str, separator: str) -> Iterator[Document]:
    """A list of texts or of objects. The whole file is held in memory; .jsonl is streamed."""
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"documents: {path} is no JSON ({error}). One value per line is a .jsonl file.") from error
    if not isinstance(rows, list):
        raise ValueError(f"documents: {path} holds one {type(rows).__name__}, but a list of documents is needed.")
    for number, row in enumerate(rows):
        yield document_of(row, text_field, f"{path}[{number}]")


def read_parquet(path: Path, text_field: str, separator: str) -> Iterator[Document]:
    """The column `text_field`, 1,024 rows at a time."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("documents: a .parquet file needs pyarrow: pip install 'sae-toolkit[lm]'.") from error
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(f"documents: {path} is no readable .parquet file ({error}).") from error
    number = 0
    with file:
        check_field(text_field, file.schema_arrow.names, str(path))
        for batch in file.iter_batches(batch_size=1024, columns=[text_field]):
            for value in batch.column(0).to_pylist():
                yield as_document(value, f"row {number} of {path}")
                number += 1


def read_npy(path: Path, text_field: str, separator: str) -> Iterator[Document]:
    """Token ids, memory-mapped: one row per document, or all of a 1-D array as one document."""
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"documents: {path} cannot be used ({error}). Save token ids with np.save.") from error
    if ids.ndim not in (1, 2) or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"documents: {path} holds {ids.dtype} of shape {ids.shape}, but token ids are integers, 1-D (one document) "
            "or 2-D (one document per row)."
        )
    yield from (np.asarray(row) for row in (ids if ids.ndim == 2 else [ids]))


READERS: dict[str, Callable[[Path, str, str], Iterator[Document]]] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".npy": read_npy,
}
"""Extension -> reader of (path, text_field, separator)."""


def find_files(path: str) -> list[Path]:
    """Files of a path in sorted order: the file itself, those of a folder and its subfolders, or those of a pattern.

    Hidden files and files of other types in a folder are passed over; a file that is named and cannot be read is a
    ValueError. Empty where nothing is found at that path.
    """
    supported = ", ".join(READERS)
    if Path(path).is_dir():
        every = sorted(file for file in Path(path).rglob("*") if file.is_file())
        inside = [file for file in every if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        files = [file for file in inside if file.suffix in READERS]
        if not files:
            raise ValueError(f"documents: the folder {path} holds no file of a known type ({supported}).")
        return files
    named = [Path(path)] if Path(path).is_file() else sorted(map(Path, glob.glob(path, recursive=True)))
    files = [file for file in named if file.is_file()]
    for file in files:
        if file.suffix not in READERS:
            raise ValueError(
                f"documents: {file} has extension {file.suffix!r}, but only {supported} can be read. Convert it."
            )
    return files


def sha256_of_ends(path: Path) -> str:
    """SHA-256 of the size and of the first and last MiB: a change in the middle of a larger file goes unseen.

    In exchange, a corpus of 40 GB is described in milliseconds.
    """
    n_bytes = path.stat().st_size
    digest = hashlib.sha256(f"{n_bytes}/".encode())
    with path.open("rb") as file:
        digest.update(file.read(HASHED_BYTES))
        file.seek(max(HASHED_BYTES, n_bytes - HASHED_BYTES))
        digest.update(file.read(HASHED_BYTES))
    return digest.hexdigest()
