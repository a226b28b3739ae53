"""What fires in the first samples, as one sparse matrix, and how those samples are divided into independent parts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.bootstrap import BLOCK_LENGTH, MIN_UNITS
from sae_toolkit.metrics.co_firing import first_rows, select_entries
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.sparse_rows import SparseRows

SparseMatrix = Any
"""A scipy.sparse.csr_matrix; SciPy is slow to import."""

KEPT_SAMPLES = 50_000
KEPT_ENTRIES = 2**24
"""8 bytes each: 128 MB at most, reached by 50,000 samples with 335 latents each."""


class KeptLatents:
    """The latents above 0 of the first samples: at most `limit` samples, ended before `max_entries` are exceeded."""

    def __init__(self, limit: int = KEPT_SAMPLES, max_entries: int = KEPT_ENTRIES) -> None:
        self.limit, self.max_entries = limit, max_entries
        self.n_samples = self.n_entries = 0
        self.full = False
        self.parts: list[SparseRows] = []
        self.document_ids: list[Tensor] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> int:
        """Keeps what still fits; returns how many samples of the batch that was."""
        if self.full:
            return 0
        latents = output.sparse_latents()
        firing = select_entries(latents, latents.values > 0)
        fitting = int((firing.offsets[1:] + self.n_entries <= self.max_entries).sum())
        n = min(firing.n_rows, self.limit - self.n_samples, fitting)
        self.full = n < firing.n_rows or self.n_samples + n == self.limit
        head = first_rows(firing, n)
        self.parts.append(
            SparseRows(
                head.values.detach().float().cpu().clone(), head.indices.int().cpu(), head.offsets.cpu(), head.shape
            )
        )
        if batch.document_ids is not None:
            self.document_ids.append(batch.document_ids[:n].cpu())
        self.n_samples += n
        self.n_entries += len(head.values)
        return n

    def matrix(self) -> SparseMatrix:
        """Activations `[n_samples d_sae]`, float32; only what is above 0 is stored."""
        if not self.parts:
            raise ValueError("KeptLatents: no sample seen, so there is nothing to score. Call `update` first.")
        return matrix_of(self.parts)

    def documents(self) -> Int[np.ndarray, " n_samples"] | None:
        """The document of every sample, None where documents are unknown."""
        ids = torch.cat(self.document_ids).numpy() if self.document_ids else np.zeros(0, dtype=np.int64)
        return ids if len(ids) == self.n_samples > 0 else None

    def groups(self, *, by_document: bool = True) -> Int[np.ndarray, " n_samples"]:
        """Numbers 0, 1, ... of the documents of the samples; runs of 32 samples where fewer than 8 are known."""
        documents = self.documents()
        if by_document and documents is not None:
            distinct, numbers = np.unique(documents, return_inverse=True)
            if len(distinct) >= MIN_UNITS:
                return numbers.reshape(-1)
        return np.arange(self.n_samples) // BLOCK_LENGTH


def matrix_of(parts: Sequence[SparseRows]) -> SparseMatrix:
    """Sparse rows one below the other as SciPy's matrix."""
    from scipy import sparse  # noqa: PLC0415  (slow import)

    values = torch.cat([part.values for part in parts]).numpy()
    indices = torch.cat([part.indices for part in parts]).numpy()
    counts = torch.cat([part.offsets.diff() for part in parts]).numpy()
    offsets = np.concatenate([[0], np.cumsum(counts)])
    matrix = sparse.csr_matrix((values, indices, offsets), shape=(len(counts), parts[0].n_columns))
    matrix.sort_indices()
    return matrix


def indicators(matrix: SparseMatrix) -> SparseMatrix:
    """1 wherever an entry is stored."""
    ones = matrix.copy()
    ones.data = np.ones(len(ones.data), dtype=np.int32)
    return ones
