"""Whether the documents in which a latent fires most are alike, more than its tokens alone explain."""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import mean_score, numpy_generator
from sae_toolkit.metrics.kept_latents import KEPT_SAMPLES, KeptLatents, SparseMatrix
from sae_toolkit.metrics.label_information import PerLatent
from sae_toolkit.metrics.label_table import MIN_FIRES
from sae_toolkit.metrics.labels import known
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.token_concentration import one_hot_tokens
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

TOP_DOCUMENTS = 10
MIN_DOCUMENTS = 5
LATENTS_AT_ONCE = 512

Numbers = Int[np.ndarray, " n"]


class Texts(NamedTuple):
    """The kept tokens, and the documents they make."""

    tokens: Int[np.ndarray, " n_samples"]
    documents: Int[np.ndarray, " n_samples"]
    """Numbered 0, 1, ..."""
    vectors: SparseMatrix
    """`[n_documents n_tokens]`: unigram tf-idf, rows of length 1."""
    occurrences: list[Numbers]
    """The documents in which each token occurs, one entry per occurrence."""


class ContextSimilarity(Metric):
    """Mean pairwise cosine of documents, as unigram tf-idf vectors of their kept tokens; no headline, see below.

    Per latent that fires (z > 0) at least 30 times: the documents of its strongest activations, one activation per
    document, at most 10 and at least 5; and as control, for each of them, the document of a random occurrence of the
    same token, never one twice. Where no such document is left, the activation is dropped, too.

    `context_similarity_top`, `context_similarity_same_token`: means over latents of the two cosines.
    `context_similarity`: mean of their difference; 0 for a latent that only looks up the token.

    Samples come shuffled, so contexts are whole documents, made of the first 50,000 samples (fewer where more than 2^24
    latents fire). A random transformer, whose attention averages over the document, passes it, too: it shows what a
    latent reads, not that a model learned anything (Heap et al. 2025, arXiv 2501.17727).
    """

    always_on: ClassVar[bool] = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [] if source.token_texts is None else [cls()]

    def __init__(self) -> None:
        self.kept = KeptLatents(KEPT_SAMPLES)
        self.token_ids: list[Tensor] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        ids = known(batch.token_ids, "token_ids", "ContextSimilarity")
        known(batch.document_ids, "document_ids", "ContextSimilarity")
        self.token_ids.append(ids[: self.kept.update(batch, output)].cpu())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        by_latent = self.kept.matrix().T.tocsr()
        documents = self.kept.documents()
        assert documents is not None
        texts = texts_of(torch.cat(self.token_ids).numpy(), documents)
        rng = numpy_generator(0, "documents of the same token")
        top, control = [], []
        for latent in range(by_latent.shape[0]):
            part = slice(by_latent.indptr[latent], by_latent.indptr[latent + 1])
            samples = by_latent.indices[part]
            if len(samples) >= MIN_FIRES:
                strongest = samples[np.argsort(-by_latent.data[part], kind="stable")]
                found, others = paired_documents(strongest, texts, rng)
                if len(found) >= MIN_DOCUMENTS:
                    top.append(found)
                    control.append(others)
        cosines = pairwise_cosines(top, texts.vectors), pairwise_cosines(control, texts.vectors)
        values = {
            "context_similarity": cosines[0] - cosines[1],
            "context_similarity_top": cosines[0],
            "context_similarity_same_token": cosines[1],
        }
        return {name: mean_score(torch.from_numpy(value), id=f"{name}/v1") for name, value in values.items()}


def texts_of(token_ids: Int[np.ndarray, " n_samples"], document_ids: Int[np.ndarray, " n_samples"]) -> Texts:
    """Documents as tf-idf vectors (scikit-learn's smoothed idf), and where each token occurs."""
    from scipy import sparse  # noqa: PLC0415  (slow import)
    from sklearn.feature_extraction.text import TfidfTransformer  # noqa: PLC0415  (slow import)

    tokens = one_hot_tokens(token_ids)
    distinct, numbers = np.unique(document_ids, return_inverse=True)
    numbers = numbers.reshape(-1)
    n = len(numbers)
    membership = sparse.csr_matrix((np.ones(n), numbers, np.arange(n + 1)), shape=(n, len(distinct)))
    counts = (membership.T @ tokens).tocsr()
    ends = np.cumsum(np.bincount(tokens.indices))[:-1]
    occurrences = list(np.split(numbers[np.argsort(tokens.indices, kind="stable")], ends))
    return Texts(tokens.indices, numbers, TfidfTransformer().fit_transform(counts), occurrences)


def paired_documents(strongest: Numbers, texts: Texts, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Documents of the strongest samples, each with that of another occurrence of the same token.

    Occurrences, not documents, are drawn: a document with many is as likely as it is among a look-up's strongest.
    """
    seen: set[int] = set()
    draws: dict[int, Iterator[int]] = {}
    top: list[int] = []
    control: list[int] = []
    for sample in strongest:
        document, token = int(texts.documents[sample]), int(texts.tokens[sample])
        if document in seen:
            continue
        seen.add(document)
        if token not in draws:
            draws[token] = iter(rng.permutation(texts.occurrences[token]).tolist())
        other = next((drawn for drawn in draws[token] if drawn not in control), None)
        if other is not None:
            top.append(document)
            control.append(other)
        if len(top) == TOP_DOCUMENTS:
            break
    return top, control


def pairwise_cosines(chosen: list[list[int]], vectors: SparseMatrix) -> PerLatent:
    """Mean cosine of all pairs of each list of rows: (|sum of unit rows|^2 - k) / (k (k - 1))."""
    from scipy import sparse  # noqa: PLC0415  (slow import)

    found: list[Float64[np.ndarray, " chunk"]] = [np.zeros(0)]
    for start in range(0, len(chosen), LATENTS_AT_ONCE):
        lists = chosen[start : start + LATENTS_AT_ONCE]
        k = np.array([len(one) for one in lists])
        offsets = np.concatenate([[0], np.cumsum(k)])
        picks = sparse.csr_matrix(
            (np.ones(offsets[-1]), np.concatenate(lists), offsets), (len(lists), vectors.shape[0])
        )
        sums = picks @ vectors
        squared = np.asarray(sums.multiply(sums).sum(axis=1)).reshape(-1)
        found.append((squared - k) / (k * (k - 1)))
    return np.concatenate(found)
