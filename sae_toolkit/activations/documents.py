"""Documents in a fixed order, and where they come from: local files, Hugging Face data sets, or a user's own texts."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any

from sae_toolkit.activations.document_files import (
    READERS,
    Document,
    as_document,
    check_field,
    find_files,
    sha256_of_ends,
)
from sae_toolkit.activations.hub_documents import (
    HUB_ID,
    is_data_set,
    is_map_style,
    is_saved_data_set,
    load_from_cache,
    load_from_hub,
    load_saved,
    network_is_forbidden,
)

HASHED_DOCUMENTS = 64
"""Documents hashed to tell one corpus from another where hashing all of it would mean reading all of it."""
ROWS_PER_READ = 256
CHARACTERS_PER_BATCH = 1_000_000
"""Text tokenised at a time: enough to keep all cores of a fast tokenizer busy, little enough as Python lists."""


def document_bytes(document: Document) -> bytes:
    """What a document is hashed by: UTF-8 text, or token ids as little-endian int64, whatever type they came in."""
    if isinstance(document, str):
        return document.encode("utf-8")
    return document.astype("<i8").tobytes()


def sha256_of(documents: Iterable[Document]) -> str:
    """SHA-256 over all documents given, in their order; where one ends and the next begins matters."""
    digest = hashlib.sha256()
    for document in documents:
        content = document_bytes(document)
        digest.update(f"{'text' if isinstance(document, str) else 'ids'}/{len(content)}/".encode())
        digest.update(content)
    return digest.hexdigest()


class Documents(ABC):
    """Texts (or arrays of token ids), numbered from 0 in an order that never changes."""

    @abstractmethod
    def iterate(self, start: int) -> Iterator[Document]:
        """All documents from number `start` on; none where there are fewer."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Provenance as JSON-ready values, the same for the same documents in every process."""

    def check_not_empty(self, what: str) -> None:
        """Reads the first document: an empty corpus, and whatever is wrong with that document, is a ValueError."""
        if next(self.iterate(0), None) is None:
            raise ValueError(f"documents: {what} holds no document. Give at least one non-empty text.")


class GivenDocuments(Documents):
    """A list of documents, a function that starts a fresh pass over them, or an iterator that can be read once.

    What a one-shot iterator gave is kept in memory for later passes: give a function where it does not fit.
    """

    def __init__(self, documents: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        if isinstance(documents, str | bytes | Mapping | Set):
            raise ValueError(
                f"documents: one {type(documents).__name__} given, but a list of texts is needed, a function that "
                "returns an iterator over texts, or an iterator. Put a single text into a list: [text]."
            )
        self.documents = tuple(documents) if isinstance(documents, list) else documents
        self.remembered: list[Any] = []
        self.earlier: Iterator[Any] | None = None
        if isinstance(documents, Iterator):
            self.kind = "iterator"
        else:
            self.kind = "list" if isinstance(documents, Sequence) else "function"
        self.check_not_empty(f"the {self.kind} given")
        if self.kind == "function":
            self.check_not_empty("the function given, when it is called again,")

    def iterate(self, start: int) -> Iterator[Document]:
        values = islice(self.values(), start, None)
        return (as_document(value, f"document {number}") for number, value in enumerate(values, start))

    def values(self) -> Iterator[Any]:
        """The documents as they were given, from the first."""
        if self.kind == "list":
            return iter(self.documents)  # type: ignore[arg-type]
        if self.kind == "iterator":
            return self.remembering()
        values = iter(self.documents() if callable(self.documents) else self.documents)
        if values is self.earlier:
            raise ValueError(
                "documents: the function given returned the same iterator twice, so documents would be lost. Let each "
                "call start afresh, or give the iterator itself (what it gave is then kept in memory)."
            )
        self.earlier = values
        return values

    def remembering(self) -> Iterator[Any]:
        """What the one-shot iterator gave so far, then what it gives next; several passes may be under way at once."""
        number = 0
        while True:
            if number == len(self.remembered):
                try:
                    self.remembered.append(next(self.documents))  # type: ignore[call-overload]
                except StopIteration:
                    return
            yield self.remembered[number]
            number += 1

    def describe(self) -> dict[str, Any]:
        if self.kind == "list":
            return {"kind": "given list", "sha256": sha256_of(self.iterate(0))}
        first = islice(self.iterate(0), HASHED_DOCUMENTS)
        return {"kind": f"given {self.kind}", f"sha256_of_first_{HASHED_DOCUMENTS}": sha256_of(first)}


class FileDocuments(Documents):
    """The documents of local files, one file after the other; nothing but the document at hand is in memory.

    (A .json file is an exception: it is read whole.)
    """

    def __init__(self, path: str, files: Sequence[Path], *, text_field: str, separator: str) -> None:
        self.path, self.files, self.text_field, self.separator = path, tuple(files), text_field, separator
        self.description: dict[str, Any] = {}
        self.check_not_empty(path)

    def iterate(self, start: int) -> Iterator[Document]:
        every = (
            document for file in self.files for document in READERS[file.suffix](file, self.text_field, self.separator)
        )
        return islice(every, start, None)

    def describe(self) -> dict[str, Any]:
        """Size and `sha256_of_ends` of each file, taken when first asked for."""
        if not self.description:
            root = Path(os.path.commonpath([file.parent for file in self.files]))
            files = {
                file.relative_to(root).as_posix(): {
                    "bytes": file.stat().st_size,
                    "sha256_of_ends": sha256_of_ends(file),
                }
                for file in self.files
            }
            self.description = {"kind": "files", "path": self.path, "files": files}
        return dict(self.description)


class HubDocuments(Documents):
    """One column of a data set of the library `datasets`: of a `Dataset`, or of an `IterableDataset` (streamed)."""

    def __init__(self, dataset: Any, text_field: str = "text", description: Mapping[str, Any] | None = None) -> None:
        """`description` says where the data set is from; a streamed one without it is told by its first documents."""
        if not is_data_set(dataset):
            raise ValueError(
                f"HubDocuments: {type(dataset).__name__} given, but a datasets.Dataset or IterableDataset is needed. "
                "Of a DatasetDict choose one split: data[split]."
            )
        self.dataset, self.text_field = dataset, text_field
        self.description = None if description is None else dict(description)
        if dataset.column_names is not None:
            check_field(text_field, dataset.column_names, "the data set")
        self.check_not_empty("the data set")

    def iterate(self, start: int) -> Iterator[Document]:
        for number, row in enumerate(self.rows_from(start), start):
            check_field(self.text_field, row, f"row {number} of the data set")
            yield as_document(row[self.text_field], f"row {number} of the data set")

    def rows_from(self, start: int) -> Iterator[Mapping[str, Any]]:
        """Rows from number `start` on: at once where they can be indexed, else by skipping."""
        if not is_map_style(self.dataset):
            yield from self.dataset.skip(start)
            return
        column = self.dataset.select_columns([self.text_field])
        for first in range(start, len(column), ROWS_PER_READ):
            for value in column[first : first + ROWS_PER_READ][self.text_field]:
                yield {self.text_field: value}

    def describe(self) -> dict[str, Any]:
        described = {"kind": "data set", **(self.description or {}), "text_field": self.text_field}
        if is_map_style(self.dataset):
            described["fingerprint"] = self.dataset._fingerprint
        elif self.description is None:
            first = islice(self.iterate(0), HASHED_DOCUMENTS)
            described[f"sha256_of_first_{HASHED_DOCUMENTS}"] = sha256_of(first)
        return described


class Cursor:
    """Documents from one number on, in batches; it stays where it stopped, so nothing is read twice in one pass."""

    def __init__(self, documents: Documents, start: int) -> None:
        self.number = start
        """Number of the next document."""
        self.upcoming = documents.iterate(start)
        self.returned: list[Document] = []

    def take(self) -> list[Document]:
        """The next documents, about CHARACTERS_PER_BATCH (a token id counts as one); empty at the end."""
        taken, size = self.returned, 0
        self.returned = []
        if not taken:
            for document in self.upcoming:
                taken.append(document)
                size += len(document)
                if size >= CHARACTERS_PER_BATCH:
                    break
        self.number += len(taken)
        return taken

    def give_back(self, documents: list[Document]) -> None:
        """The last documents of the last batch come again with the next one."""
        self.returned = documents
        self.number -= len(documents)

    def at_end(self) -> bool:
        if not self.returned:
            self.returned = list(islice(self.upcoming, 1))
        return not self.returned


def as_documents(given: Any, text_field: str) -> Documents:
    """Documents as they are, a data set by its column `text_field`, and everything else as `GivenDocuments`."""
    if isinstance(given, Documents):
        return given
    if is_data_set(given):
        return HubDocuments(given, text_field)
    if isinstance(given, Iterable) or callable(given):
        return GivenDocuments(given)
    raise ValueError(
        f"documents: {type(given).__name__} given, but a list of texts is needed, a function that returns an iterator "
        "over texts, an iterator, or a data set."
    )


def open_documents(
    path: str, *, subset: str | None, hub_split: str, text_field: str, separator: str, offline: bool
) -> Documents:
    """The documents of a local file, folder or pattern; where none exists there, of a data set on the hub.

    `subset` and `hub_split` choose among the parts of a data set, `text_field` is the field (or column) that holds the
    text, `separator` stands between documents in .txt files. With `offline` nothing is asked of the network: a data set
    is then read from the local cache of `datasets`. Whatever cannot be opened is a ValueError.
    """
    if not path:
        raise ValueError("documents: an empty path given. Give a file, folder or pattern, or a data set on the hub.")
    if is_saved_data_set(Path(path)):
        description = {"path": path, "hub_split": hub_split}
        return HubDocuments(load_saved(Path(path), hub_split), text_field, description)
    if files := find_files(path):
        return FileDocuments(path, files, text_field=text_field, separator=separator)
    if HUB_ID.fullmatch(path) is None or Path(path).suffix in READERS:
        raise ValueError(
            f"documents: {path!r} does not exist, and is no name of a data set on the hub either ('owner/name'). Give "
            "an existing file, folder or pattern, or such a name."
        )
    origin: dict[str, Any] = {"hub_id": path, "subset": subset, "hub_split": hub_split}
    if offline or network_is_forbidden():
        return HubDocuments(load_from_cache(path, subset, hub_split), text_field, origin)
    dataset, commit = load_from_hub(path, subset, hub_split)
    return HubDocuments(dataset, text_field, {**origin, "commit": commit})
