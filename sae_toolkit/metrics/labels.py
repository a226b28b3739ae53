"""What is known about samples without asking anyone: tokens, their kinds, places, documents, true features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.co_firing import coefficients_of, select_entries
from sae_toolkit.metrics.token_kinds import (
    FIRST_LETTERS,
    LINGUISTIC_KINDS,
    TOKEN_CLASSES,
    first_letter,
    linguistic_kinds,
    token_class,
)
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts

N_DOCUMENT_CLASSES = 4096
"""Documents are told apart by their number modulo this; a few hundred documents hardly ever meet."""
N_POSITION_BUCKETS = 18
"""Buckets 0, 1, 2-3, 4-7, ... up to 65,536 and beyond."""


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """A question with named answers that can be asked about every sample."""

    name: str
    """Ends the names of scores, so lower case with underscores."""
    classes: Sequence[str]
    """One name per column."""
    of: Callable[[ActivationBatch], SparseRows]
    """`[batch n_classes]`: every stored entry is a class that holds; the values mean nothing."""
    exclusive: bool
    """Whether exactly one class holds for each sample."""
    contextual: bool
    """Whether the token id alone does not decide it, so that "more than the token" is a question."""
    within_documents: bool = False
    """Whether its classes live inside single documents, so that data cannot be split by document to judge them."""


def labellings_for(source: ActivationSource) -> list[Labelling]:
    """Every labelling of this file that the source can answer.

    Where token ids have texts, batches must carry `token_ids`, `positions` and `document_ids`, as those of language
    models do.
    """
    found = []
    texts = source.token_texts
    if texts is not None:
        found += [
            token_identity(texts),
            token_classes(texts),
            first_letters(texts),
            linguistic(texts),
            position_buckets(),
            documents(),
        ]
    if source.feature_names is not None:
        found.append(true_features(source.feature_names))
    return found


def token_identity(texts: Sequence[str]) -> Labelling:
    """Which token it is."""
    table = one_hot(torch.arange(len(texts)), len(texts))
    return by_token("token", texts, table, exclusive=True)


def token_classes(texts: Sequence[str]) -> Labelling:
    """Which of `TOKEN_CLASSES` the token is in."""
    numbers = torch.tensor([TOKEN_CLASSES.index(token_class(text)) for text in texts])
    return by_token("token_class", TOKEN_CLASSES, one_hot(numbers, len(TOKEN_CLASSES)), exclusive=True)


def first_letters(texts: Sequence[str]) -> Labelling:
    """Which letter the token begins with."""
    numbers = torch.tensor([FIRST_LETTERS.index(first_letter(text)) for text in texts])
    return by_token("first_letter", FIRST_LETTERS, one_hot(numbers, len(FIRST_LETTERS)), exclusive=True)


def linguistic(texts: Sequence[str]) -> Labelling:
    """Function word, negation, pronoun, common endings, ...: kinds of English words that the text gives away."""
    return by_text("linguistic", texts, LINGUISTIC_KINDS, linguistic_kinds)


def by_text(
    name: str, texts: Sequence[str], classes: Sequence[str], classes_of: Callable[[str], Sequence[str]]
) -> Labelling:
    """Any number of classes per token, found from its text."""
    column = {one: i for i, one in enumerate(classes)}
    held = [[column[one] for one in classes_of(text)] for text in texts]
    indices = torch.tensor([i for row in held for i in row], dtype=torch.long)
    counts = torch.tensor([len(row) for row in held], dtype=torch.long)
    table = SparseRows(torch.ones(len(indices)), indices, offsets_of_counts(counts), (len(texts), len(classes)))
    return by_token(name, classes, table, exclusive=False)


def by_token(name: str, classes: Sequence[str], table: SparseRows, *, exclusive: bool) -> Labelling:
    """Row i of `table` says what holds for token id i."""

    def of(batch: ActivationBatch) -> SparseRows:
        ids = known(batch.token_ids, "token_ids", f"Labelling {name}").cpu()
        if len(ids) and int(ids.max()) >= table.n_rows:
            raise ValueError(
                f"Labelling {name}: token id {int(ids.max())} given, but only {table.n_rows} ids have a text. "
                "Use the texts of the tokenizer that cut the text."
            )
        return select_rows(table, ids)

    return Labelling(name=name, classes=classes, of=of, exclusive=exclusive, contextual=False)


def position_buckets() -> Labelling:
    """How far into its row of text a token stands, in buckets that double: 0, 1, 2-3, 4-7, ..."""
    starts = [0, *(2**i for i in range(N_POSITION_BUCKETS - 1))]
    ends = [start - 1 for start in starts[1:]]
    spans = [str(a) if a == b else f"{a}_to_{b}" for a, b in zip(starts, ends, strict=False)]
    classes = (*spans, f"{starts[-1]}_and_more")

    def of(batch: ActivationBatch) -> SparseRows:
        positions = known(batch.positions, "positions", "Labelling position").cpu()
        buckets = torch.bucketize(positions, torch.tensor(starts), right=True) - 1
        return one_hot(buckets, len(classes))

    return Labelling(name="position", classes=classes, of=of, exclusive=True, contextual=True)


def documents() -> Labelling:
    """Which document the sample is from, by its number modulo 4,096."""

    def of(batch: ActivationBatch) -> SparseRows:
        numbers = known(batch.document_ids, "document_ids", "Labelling document").cpu()
        return one_hot(numbers.long() % N_DOCUMENT_CLASSES, N_DOCUMENT_CLASSES)

    classes = [f"document {i} modulo {N_DOCUMENT_CLASSES}" for i in range(N_DOCUMENT_CLASSES)]
    return Labelling(name="document", classes=classes, of=of, exclusive=True, contextual=True, within_documents=True)


def true_features(names: Sequence[str]) -> Labelling:
    """Which true features fire (coefficient above 0)."""

    def of(batch: ActivationBatch) -> SparseRows:
        coefficients = coefficients_of(batch)
        return select_entries(coefficients, coefficients.values > 0)

    return Labelling(name="feature", classes=names, of=of, exclusive=False, contextual=True)


def known(labels: Int[Tensor, " batch"] | None, field: str, asked_by: str) -> Int[Tensor, " batch"]:
    """The labels, or a ValueError where the source does not give them."""
    if labels is None:
        raise ValueError(
            f"{asked_by} needs {field}, but the batch has {field}=None. Use a source that knows them, or leave it out."
        )
    return labels


def one_hot(classes: Int[Tensor, " n"], n_classes: int) -> SparseRows:
    """Rows with one entry each."""
    offsets = torch.arange(len(classes) + 1)
    return SparseRows(torch.ones(len(classes)), classes.long(), offsets, (len(classes), n_classes))


def select_rows(rows: SparseRows, numbers: Int[Tensor, " n"]) -> SparseRows:
    """Rows by number, in the order and as often as they are asked for."""
    counts = rows.offsets.diff()[numbers]
    offsets = offsets_of_counts(counts)
    within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(counts)
    entries = rows.offsets[numbers].repeat_interleave(counts) + within
    return SparseRows(rows.values[entries], rows.indices[entries], offsets, (len(numbers), rows.n_columns))
