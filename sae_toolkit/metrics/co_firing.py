"""What is remembered about features and latents that fire together: counts of all pairs, and a bounded sample."""

from typing import NamedTuple

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
    end = int(rows.offsets[n])
    return SparseRows(rows.values[:end], rows.indices[:end], rows.offsets[: n + 1], (n, rows.n_columns))


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


class KeptSamples:
    """The nonzero coefficients and latents of the first `limit` samples, read back column by column."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n_samples = 0
        self.features: list[tuple[Tensor, Tensor, Tensor]] = []
        self.latents: list[tuple[Tensor, Tensor, Tensor]] = []
        self.shape = (0, 0)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        """Keeps what still fits."""
        features, latents = coefficients_of(batch), output.sparse_latents()
        n = min(features.n_rows, self.limit - self.n_samples)
        if n == 0:
            return
        self.shape = (features.n_columns, latents.n_columns)
        for rows, kept in ((features, self.features), (latents, self.latents)):
            head = first_rows(rows, n)
            kept.append(
                (
                    (head.rows + self.n_samples).int().cpu(),
                    head.indices.int().cpu(),
                    head.values.detach().cpu().clone(),
                )
            )
        self.n_samples += n

    def feature_columns(self) -> list[Column]:
        """One column per true feature."""
        return columns_of(self.features, self.shape[0])

    def latent_columns(self) -> list[Column]:
        """One column per latent."""
        return columns_of(self.latents, self.shape[1])


def columns_of(kept: list[tuple[Tensor, Tensor, Tensor]], n_columns: int) -> list[Column]:
    """Entries (row, column, value) regrouped by column; explicit zeros are dropped."""
    if not kept:
        raise ValueError("KeptSamples: no sample seen, so there is nothing to score. Call `update` first.")
    rows, columns, values = (torch.cat(parts).numpy() for parts in zip(*kept, strict=True))
    nonzero = values != 0
    rows, columns, values = rows[nonzero], columns[nonzero], values[nonzero].astype(np.float64)
    order = np.argsort(columns, kind="stable")
    ends = np.cumsum(np.bincount(columns, minlength=n_columns))[:-1]
    return [
        Column(samples, numbers)
        for samples, numbers in zip(np.split(rows[order], ends), np.split(values[order], ends), strict=True)
    ]
