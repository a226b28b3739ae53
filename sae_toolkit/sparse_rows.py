"""Rows with few nonzeros: one form for the latents an SAE selects and for the coefficients of a known world."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SparseRows:
    """The nonzeros of a `[*batch n_columns]` tensor, row after row; `values` may carry gradients.

    Rows may hold different numbers of entries (batch-wide selection, Bernoulli firing). Within a row each column
    occurs at most once; the order of columns is free.
    """

    values: Float[Tensor, " nnz"]
    indices: Int[Tensor, " nnz"]
    """The column of each value."""
    offsets: Int[Tensor, " n_rows_plus_one"]
    """Row r owns entries offsets[r] to offsets[r + 1]."""
    shape: tuple[int, ...]
    """Of the dense tensor: (*batch, n_columns)."""

    @classmethod
    def from_dense(cls, dense: Float[Tensor, "*batch n_columns"]) -> "SparseRows":
        """Keeps every entry that is not exactly zero; gradients flow through the kept values."""
        flat = dense.reshape(-1, dense.shape[-1])
        rows, indices = (flat != 0).nonzero(as_tuple=True)
        offsets = offsets_of_counts(torch.bincount(rows, minlength=flat.shape[0]))
        return cls(values=flat[rows, indices], indices=indices, offsets=offsets, shape=tuple(dense.shape))

    @classmethod
    def from_topk(
        cls, values: Float[Tensor, "*batch k"], indices: Int[Tensor, "*batch k"], n_columns: int
    ) -> "SparseRows":
        """Rows that all hold k entries, as `torch.topk` returns them."""
        k = values.shape[-1]
        offsets = torch.arange(0, values.numel() + 1, max(k, 1), device=values.device)
        return cls(
            values=values.reshape(-1),
            indices=indices.reshape(-1),
            offsets=offsets,
            shape=(*values.shape[:-1], n_columns),
        )

    @property
    def n_rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def n_columns(self) -> int:
        return self.shape[-1]

    @property
    def rows(self) -> Int[Tensor, " nnz"]:
        """The row of each value, counted over the flattened batch."""
        numbers = torch.arange(self.n_rows, device=self.offsets.device)
        return numbers.repeat_interleave(self.offsets.diff(), output_size=self.values.numel())

    def to_dense(self) -> Float[Tensor, "*batch n_columns"]:
        dense = self.values.new_zeros(self.n_rows, self.n_columns)
        return dense.index_put((self.rows, self.indices), self.values).reshape(self.shape)

    def reshape_batch(self, batch: Sequence[int]) -> "SparseRows":
        """The same rows under other leading dimensions."""
        return SparseRows(self.values, self.indices, self.offsets, (*batch, self.n_columns))

    def combine(self, vectors: Float[Tensor, "n_columns d"]) -> Float[Tensor, "*batch d"]:
        """`to_dense() @ vectors` without building the dense rows."""
        combined = F.embedding_bag(
            self.indices,
            vectors,
            self.offsets,
            mode="sum",
            per_sample_weights=self.values.to(vectors.dtype),
            include_last_offset=True,
        )
        return combined.reshape(*self.shape[:-1], vectors.shape[-1])

    def column_counts(self) -> Int[Tensor, " n_columns"]:
        """In how many rows each column is not zero (an explicit zero does not count)."""
        return torch.bincount(self.indices[self.values != 0], minlength=self.n_columns)


def offsets_of_counts(counts: Int[Tensor, " n_rows"]) -> Int[Tensor, " n_rows_plus_one"]:
    """Row offsets from the number of entries per row."""
    return F.pad(counts.cumsum(0), (1, 0))
