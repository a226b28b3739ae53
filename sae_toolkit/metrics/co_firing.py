"""What is remembered about features and latents that fire together: counts of all pairs, and a bounded sample."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts

PAIRS_AT_ONCE = 2**22


def coefficients_of(batch: ActivationBatch) -> SparseRows:
    """The truth of a batch, or a ValueError where the source does not know it."""
    if batch.coefficients is None:
        raise ValueError(
            "This metric compares latents with true coefficients, but the batch has coefficients=None. "
            "Use a source that knows them, or leave this metric out."
        )
    return batch.coefficients


def select_entries(rows: SparseRows, keep: Bool[Tensor, " nnz"]) -> SparseRows:
    """The entries where `keep` holds."""
    counts = torch.bincount(rows.rows[keep], minlength=rows.n_rows)
    return SparseRows(rows.values[keep], rows.indices[keep], offsets_of_counts(counts), rows.shape)


def first_rows(rows: SparseRows, n: int) -> SparseRows:
    """The first n rows of a `[batch n_columns]` SparseRows."""
    return rows_between(rows, 0, n)


def rows_between(rows: SparseRows, start: int, stop: int) -> SparseRows:
    """Rows start to stop - 1 of a `[batch n_columns]` SparseRows."""
    first, last = int(rows.offsets[start]), int(rows.offsets[stop])
    offsets = rows.offsets[start : stop + 1] - first
    return SparseRows(rows.values[first:last], rows.indices[first:last], offsets, (stop - start, rows.n_columns))


def select_rows(rows: SparseRows, keep: Bool[Tensor, " n_rows"]) -> SparseRows:
    """The rows of a `[batch n_columns]` SparseRows where `keep` holds."""
    entries, counts = keep[rows.rows], rows.offsets.diff()[keep]
    return SparseRows(
        rows.values[entries], rows.indices[entries], offsets_of_counts(counts), (len(counts), rows.n_columns)
    )


class CoFiring:
    """Counts over all samples: each feature on, each latent firing, and both; what fires is decided by the caller.

    The table takes 4 bytes per (feature, latent): 0.27 GB for 16,384 features and 4,096 latents.
    """

    def __init__(self) -> None:
        self.n_samples = 0
        self.both: Int[Tensor, "n_features d_sae"] = torch.zeros(0, 0, dtype=torch.int32)
        self.feature_on: Int[Tensor, " n_features"] = torch.zeros(0, dtype=torch.long)
        self.latent_on: Int[Tensor, " d_sae"] = torch.zeros(0, dtype=torch.long)

    def update(self, features: SparseRows, latents: SparseRows) -> None:
        """Adds one batch; every stored entry counts as firing."""
        n_features, d_sae = features.n_columns, latents.n_columns
        if self.n_samples == 0:
            self.both = torch.zeros(n_features, d_sae, dtype=torch.int32)
            self.feature_on = torch.zeros(n_features, dtype=torch.long)
            self.latent_on = torch.zeros(d_sae, dtype=torch.long)
        self.n_samples += features.n_rows
        self.feature_on += torch.bincount(features.indices, minlength=n_features)
        self.latent_on += torch.bincount(latents.indices, minlength=d_sae)
        table = self.both.view(-1)
        per_entry = latents.offsets.diff()[features.rows]  # latents that fire with each feature entry
        ends = per_entry.cumsum(0)
        n_pairs = int(ends[-1]) if len(ends) else 0
        for start in range(0, n_pairs, PAIRS_AT_ONCE):
            pair = torch.arange(start, min(start + PAIRS_AT_ONCE, n_pairs))
            entry = torch.searchsorted(ends, pair, right=True)
            within = pair - (ends - per_entry)[entry]
            latent = latents.indices[latents.offsets[features.rows[entry]] + within]
            keys = features.indices[entry] * d_sae + latent
            table.index_add_(0, keys, torch.ones(len(keys), dtype=torch.int32))


class Column(NamedTuple):
    """The nonzeros of one feature or latent over the kept samples, in order of sample."""

    samples: np.ndarray
    values: np.ndarray


def shared_samples(column: Column, other: Column) -> Bool[np.ndarray, " n"]:
    """Which samples of a column the other one has, too."""
    if len(column.samples) == 0 or len(other.samples) == 0:
        return np.zeros(len(column.samples), dtype=bool)
    has = np.zeros(1 + max(column.samples[-1], other.samples[-1]), dtype=bool)
    has[other.samples] = True
    shared: np.ndarray = has[column.samples]
    return shared


class KeptColumns:
    """The nonzeros of the first `limit` sparse rows seen, read back column by column."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n_samples = self.n_columns = 0
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, rows: SparseRows) -> None:
        """Keeps what still fits."""
        n = min(rows.n_rows, self.limit - self.n_samples)
        if n == 0:
            return
        head = first_rows(rows, n)
        row_numbers = (head.rows + self.n_samples).int().cpu()
        self.parts.append((row_numbers, head.indices.int().cpu(), head.values.detach().cpu().clone()))
        self.n_samples, self.n_columns = self.n_samples + n, rows.n_columns

    def columns(self) -> list[Column]:
        """One column per feature or latent."""
        return columns_of(self.parts, self.n_columns)


class KeptSamples:
    """The nonzero coefficients and latents of the first `limit` samples, read back column by column."""

    def __init__(self, limit: int) -> None:
        self.features, self.latents = KeptColumns(limit), KeptColumns(limit)

    @property
    def n_samples(self) -> int:
        return self.latents.n_samples

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        """Keeps what still fits."""
        self.features.update(coefficients_of(batch))
        self.latents.update(output.sparse_latents())

    def feature_columns(self) -> list[Column]:
        """One column per true feature."""
        return self.features.columns()

    def latent_columns(self) -> list[Column]:
        """One column per latent."""
        return self.latents.columns()


def columns_of(kept: list[tuple[Tensor, Tensor, Tensor]], n_columns: int) -> list[Column]:
    """Entries (row, column, value) regrouped by column; explicit zeros are dropped."""
    if not kept:
        raise ValueError("No sample seen, so there is nothing to score. Call `update` first.")
    rows, columns, values = (torch.cat(parts).numpy() for parts in zip(*kept, strict=True))
    nonzero = values != 0
    rows, columns, values = rows[nonzero], columns[nonzero], values[nonzero].astype(np.float64)
    order = np.argsort(columns, kind="stable")
    ends = np.cumsum(np.bincount(columns, minlength=n_columns))[:-1]
    return [
        Column(samples, numbers)
        for samples, numbers in zip(np.split(rows[order], ends), np.split(values[order], ends), strict=True)
    ]


def matrix_of(columns: Sequence[Column], n_samples: int) -> Any:
    """The `[n_samples n_columns]` SciPy CSR matrix of columns over samples 0 to n_samples - 1."""
    from scipy.sparse import csc_matrix  # noqa: PLC0415  (slow import)

    starts = np.cumsum([0, *(len(column.samples) for column in columns)])
    samples = np.concatenate([np.zeros(0, dtype=np.int32), *(column.samples for column in columns)])
    values = np.concatenate([np.zeros(0), *(column.values for column in columns)])
    return csc_matrix((values, samples, starts), shape=(n_samples, len(columns))).tocsr()


def indicators_of(columns: Sequence[Column]) -> list[Column]:
    """1 wherever a column has an entry."""
    return [Column(column.samples, np.ones_like(column.values)) for column in columns]
