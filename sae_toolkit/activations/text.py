"""Text as rows of tokens: whole documents, joined by EOS, split into train and eval by a hash, in windows."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sae_toolkit.activations.document_files import Document
from sae_toolkit.activations.documents import Cursor, Documents, as_documents, document_bytes, open_documents
from sae_toolkit.activations.packing import TokenRows, Window
from sae_toolkit.activations.source import Split
from sae_toolkit.activations.token_texts import token_texts
from sae_toolkit.config import to_json

__all__ = ["Text", "TextConfig", "TokenRows", "Window"]

WINDOWS_KEPT = 4
"""Of train and eval, the first and the current window."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which text, and how it becomes rows of tokens."""

    path: str | None = None
    """File, folder or pattern (.txt, .jsonl, .json, .parquet, .npy of ids), or a hub data set "owner/name[@branch]"."""
    context_length: int = 128
    """Tokens per row, BOS included."""
    eval_share: float = 0.1
    """Expected share of documents in the eval split, chosen by a hash of their content."""
    prepend_bos: bool | None = None
    """Whether each row starts with BOS; None: where the tokenizer has one."""
    limit_tokens: int | None = None
    """The corpus ends with the document in which the tokens of both splits together reach this number; None: never."""
    subset: str | None = None
    """Part of a hub data set, such as "en"."""
    hub_split: str = "train"
    """Split of a hub data set; train and eval are both cut out of it."""
    text_field: str = "text"
    """Field or column that holds the text (or the token ids) of a document."""
    separator: str = "<|endoftext|>"
    """What stands between the documents of a .txt file."""
    window_tokens: int = 4_194_304
    """Tokens that are shuffled together at most; 4 bytes each in memory."""

    def __post_init__(self) -> None:
        if self.context_length < 2:
            raise ValueError(f"TextConfig: context_length={self.context_length} given, but it must be at least 2.")
        if not 0 <= self.eval_share <= 1:
            raise ValueError(f"TextConfig: eval_share={self.eval_share} given, but it must lie in [0, 1].")
        if self.limit_tokens is not None and self.limit_tokens < 1:
            raise ValueError(f"TextConfig: limit_tokens={self.limit_tokens} given, but it must be at least 1, or None.")
        if self.window_tokens < self.context_length:
            raise ValueError(
                f"TextConfig: window_tokens={self.window_tokens} given with context_length={self.context_length}, but "
                "a window must hold at least one row. Give more window_tokens."
            )
        for name in ("path", "subset", "separator", "text_field", "hub_split"):
            if getattr(self, name) == "":
                raise ValueError(f"TextConfig: {name} is empty. Leave it out or give one.")


class Text:
    """A corpus and a tokenizer, read window by window.

    A window starts at a document and takes whole documents of its split until it holds `window_tokens`. Documents that
    give no token at all keep their number and are left out. Without an EOS in the tokenizer, nothing stands between
    documents.
    """

    def __init__(
        self, documents: Documents | Iterable[Any] | Callable[[], Iterable[Any]], tokenizer: Any, config: TextConfig
    ) -> None:
        """`documents`: see `GivenDocuments`; also a `datasets.Dataset`. `tokenizer`: one of transformers."""
        self.documents, self.tokenizer, self.config = as_documents(documents, config.text_field), tokenizer, config
        self.bos_token_id: int | None = tokenizer.bos_token_id
        self.eos_token_id: int | None = tokenizer.eos_token_id
        self.pad_token_id: int | None = tokenizer.pad_token_id
        if config.prepend_bos and self.bos_token_id is None:
            raise ValueError(
                f"Text: prepend_bos=True asked, but the tokenizer {tokenizer.name_or_path!r} has no BOS. Set "
                "prepend_bos=False, or give the tokenizer a bos_token."
            )
        self.prepend_bos = self.bos_token_id is not None if config.prepend_bos is None else config.prepend_bos
        self.windows: OrderedDict[tuple[Split, int], Window] = OrderedDict()
        self.cursors: dict[Split, Cursor] = {}
        self.n_counted = (0, 0)
        """For limit_tokens: the first so many documents hold so many tokens."""
        self.end: int | None = None
        """Number of documents that limit_tokens lets in, once it is known."""
        self.vocabulary_sha256 = ""

    @classmethod
    def read(cls, tokenizer: Any, config: TextConfig, *, offline: bool = False) -> "Text":
        """The text at `config.path`; with `offline` nothing is asked of the network."""
        if config.path is None:
            raise ValueError("Text.read: no path given. Set path to a file, a folder or a data set on the hub.")
        documents = open_documents(
            config.path,
            subset=config.subset,
            hub_split=config.hub_split,
            text_field=config.text_field,
            separator=config.separator,
            offline=offline,
        )
        return cls(documents, tokenizer, config)

    @property
    def special_token_ids(self) -> dict[str, int]:
        """Ids of "bos", "eos" and "pad" where the tokenizer has them; several may be the same id."""
        ids = {"bos": self.bos_token_id, "eos": self.eos_token_id, "pad": self.pad_token_id}
        return {name: token_id for name, token_id in ids.items() if token_id is not None}

    @cached_property
    def token_texts(self) -> tuple[str, ...] | None:
        """What each token id reads like; None where its tokenizer gives ids no text."""
        return token_texts(self.tokenizer)

    def window(self, split: Split, start: int) -> Window:
        """The rows of this split from document number `start` on; nothing but the arguments decides what is in it."""
        if split not in ("train", "eval"):
            raise ValueError(f'Text.window: split={split!r} asked, but it is "train" or "eval".')
        if start < 0:
            raise ValueError(f"Text.window: start={start} asked, but documents are numbered from 0.")
        if (split, start) not in self.windows:
            self.windows[split, start] = self.read_window(split, start)
            if len(self.windows) > WINDOWS_KEPT:
                self.windows.popitem(last=False)
        self.windows.move_to_end((split, start))
        return self.windows[split, start]

    def check_rows(self, split: Split) -> None:
        """A ValueError where the corpus gives no full row for this split."""
        window = self.window(split, 0)
        if window.n_rows == 0:
            raise ValueError(
                f"Text: the {split} split has 0 rows of {self.config.context_length} tokens: {window.n_documents} "
                f"documents, {window.n_tokens} tokens in it. Lower context_length, change eval_share (it is "
                f"{self.config.eval_share}), or give more text or more documents (of a .txt file, set the separator)."
            )

    def read_window(self, split: Split, start: int) -> Window:
        self.count_documents(until=start)
        cursor = self.cursors.pop(split, None)
        if cursor is None or cursor.number != start:
            cursor = Cursor(self.documents, start)
        kept: list[tuple[int, np.ndarray]] = []
        n_tokens, full = 0, False
        while not full and (batch := self.next_batch(cursor)):
            first = cursor.number - len(batch)
            for number, ids in self.members(batch, split, first):
                kept.append((number, ids))
                n_tokens += len(ids)
                if n_tokens >= self.config.window_tokens:
                    full = True
                    cursor.give_back(batch[number + 1 - first :])
                    break
        ended = (self.end is not None and cursor.number >= self.end) or cursor.at_end()
        self.cursors[split] = cursor
        return Window(
            [ids for _, ids in kept],
            [number for number, _ in kept],
            context_length=self.config.context_length,
            bos_token_id=self.bos_token_id if self.prepend_bos else None,
            next_start=None if ended else cursor.number,
        )

    def next_batch(self, cursor: Cursor) -> list[Document]:
        """The next documents, none beyond the end that limit_tokens sets (where it is known by now)."""
        batch = cursor.take()
        if self.end is None:
            return batch
        n_inside = max(0, self.end - (cursor.number - len(batch)))
        cursor.give_back(batch[n_inside:])
        return batch[:n_inside]

    def members(self, batch: Sequence[Document], split: Split, first: int) -> list[tuple[int, np.ndarray]]:
        """Numbers and token ids of the documents of a split in a batch that starts with document number `first`.

        Where their tokens still have to be counted for limit_tokens, the documents of the other split are tokenised
        too.
        """
        to_count = self.config.limit_tokens is not None and self.end is None
        to_count = to_count and first + len(batch) > self.n_counted[0]
        inside = [self.split_of(document, number) == split for number, document in enumerate(batch, first)]
        chosen = [place for place in range(len(batch)) if to_count or inside[place]]
        tokens = self.tokenise([batch[place] for place in chosen], first)
        if to_count:
            self.count([(first + place, len(ids)) for place, ids in zip(chosen, tokens, strict=True)])
        end = first + len(batch) if self.end is None else self.end
        pairs = zip(chosen, tokens, strict=True)
        return [(first + place, ids) for place, ids in pairs if inside[place] and len(ids) and first + place < end]

    def count(self, lengths: Sequence[tuple[int, int]]) -> None:
        """Adds documents (number, tokens) not counted before; the one that reaches limit_tokens is the last."""
        assert self.config.limit_tokens is not None
        for number, length in lengths:
            if number == self.n_counted[0] and self.end is None:
                self.n_counted = (number + 1, self.n_counted[1] + length)
                if self.n_counted[1] >= self.config.limit_tokens:
                    self.end = number + 1

    def count_documents(self, *, until: int) -> None:
        """With limit_tokens, the tokens before document number `until` must be known; costs nothing in a first pass."""
        if self.config.limit_tokens is None or self.end is not None or self.n_counted[0] >= until:
            return
        cursor = Cursor(self.documents, self.n_counted[0])
        while self.end is None and self.n_counted[0] < until and (batch := cursor.take()):
            self.members(batch, "train", cursor.number - len(batch))

    def split_of(self, document: Document, number: int) -> Split:
        """By content alone: equal documents fall into the same split, and no other document can move one."""
        try:
            content = document_bytes(document)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Text: document {number} is no valid Unicode ({error.reason}). Clean it first."
            ) from error
        share = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
        return "eval" if share < self.config.eval_share * 2**64 else "train"

    def tokenise(self, documents: Sequence[Document], first: int) -> list[np.ndarray]:
        """Token ids of each document as int32, EOS included; nothing at all for a document without tokens."""
        texts = [document for document in documents if isinstance(document, str)]
        encoded: list[list[int]] = []
        if texts:
            encoded = self.tokenizer(
                texts,
                add_special_tokens=False,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                verbose=False,
            )["input_ids"]
        if first == 0 and any(text.strip() for text in texts) and not any(encoded):
            raise ValueError(
                f"Text: the tokenizer {self.tokenizer.name_or_path!r} gives no tokens for the first {len(texts)} "
                "texts: its vocabulary may be empty. Load it with AutoTokenizer.from_pretrained."
            )
        from_texts = iter(encoded)
        eos = [] if self.eos_token_id is None else [self.eos_token_id]
        ids = [next(from_texts) if isinstance(document, str) else self.checked(document) for document in documents]
        return [np.array([*one, *eos] if len(one) else [], dtype=np.int32) for one in ids]

    def checked(self, ids: np.ndarray) -> np.ndarray:
        """Token ids given by the user, if the tokenizer knows them all."""
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self.tokenizer)):
            raise ValueError(
                f"Text: token ids from {ids.min()} to {ids.max()} given, but the tokenizer "
                f"{self.tokenizer.name_or_path!r} has ids 0 to {len(self.tokenizer) - 1}. Use the tokenizer "
                "they are from."
            )
        return ids

    def describe(self) -> dict[str, Any]:
        """Provenance as JSON-ready values: the documents, the tokenizer, every choice as it was resolved."""
        if not self.vocabulary_sha256:
            vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items()))
            self.vocabulary_sha256 = hashlib.sha256(vocabulary.encode()).hexdigest()
        return {
            "documents": self.documents.describe(),
            "tokenizer": {
                "name": self.tokenizer.name_or_path,
                "vocabulary_size": len(self.tokenizer),
                "vocabulary_sha256": self.vocabulary_sha256,
                "special_token_ids": self.special_token_ids,
                "joined_by_eos": self.eos_token_id is not None,
            },
            "config": {**to_json(self.config), "prepend_bos": self.prepend_bos},
        }
