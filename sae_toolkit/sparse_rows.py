"""Rows with few nonzeros: one form for the latents an SAE selects and for the coefficients of a known world."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
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
    places: "Places" = field(init=False, repr=False, compare=False)
    """Where the values are; shared with all rows made by `with_values`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", Places(self))

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
        return self.places.rows

    def to_dense(self) -> Float[Tensor, "*batch n_columns"]:
        dense = self.values.new_zeros(self.n_rows, self.n_columns)
        return dense.index_put((self.rows, self.indices), self.values).reshape(self.shape)

    def with_values(self, values: Float[Tensor, " nnz"]) -> "SparseRows":
        """Other values at the same places."""
        other = replace(self, values=values)
        object.__setattr__(other, "places", self.places)
        return other

    def reshape_batch(self, batch: Sequence[int]) -> "SparseRows":
        """The same rows under other leading dimensions."""
        other = replace(self, shape=(*batch, self.n_columns))
        object.__setattr__(other, "places", self.places)
        return other

    def combine(self, vectors: Float[Tensor, "n_columns d"]) -> Float[Tensor, "*batch d"]:
        """`to_dense() @ vectors` without building the dense rows."""
        combined = self.places.row_sums(self.values.to(vectors.dtype), vectors)
        return combined.reshape(*self.shape[:-1], vectors.shape[-1])

    def some_columns(self, columns: Int[Tensor, " n_chosen"]) -> Float[Tensor, "*batch n_chosen"]:
        """A few columns as a dense tensor, in the order asked for."""
        places = torch.arange(len(columns), device=self.indices.device)
        place = torch.full((self.n_columns,), -1, device=self.indices.device).index_put((columns,), places)
        entries = (place[self.indices] >= 0).nonzero()[:, 0]
        dense = self.values.new_zeros(self.n_rows, len(columns))
        at = (self.rows[entries], place[self.indices[entries]])
        return dense.index_put(at, self.values[entries]).reshape(*self.shape[:-1], len(columns))

    def column_counts(self) -> Int[Tensor, " n_columns"]:
        """In how many rows each column is not zero (an explicit zero does not count)."""
        return torch.bincount(self.indices[self.values != 0], minlength=self.n_columns)


class Places:
    """Where sparse rows have entries, row by row and column by column; sorted once, when first asked."""

    def __init__(self, entries: SparseRows) -> None:
        self.indices, self.n_columns = entries.indices, entries.n_columns
        self.row_offsets, self.n_rows = entries.offsets, entries.n_rows

    @cached_property
    def rows(self) -> Int[Tensor, " nnz"]:
        """The row of each place, row after row."""
        numbers = torch.arange(self.n_rows, device=self.row_offsets.device)
        return numbers.repeat_interleave(self.row_offsets.diff(), output_size=self.indices.numel())

    @cached_property
    def column_order(self) -> Int[Tensor, " nnz"]:
        """The place that comes first by column, the next one, ...; rows ascend within a column."""
        return self.indices.argsort(stable=True)

    @cached_property
    def rows_by_column(self) -> Int[Tensor, " nnz"]:
        """The row of each place, column after column."""
        return self.rows[self.column_order]

    @cached_property
    def column_offsets(self) -> Int[Tensor, " n_columns_plus_one"]:
        """Column c owns places offsets[c] to offsets[c + 1] of the order."""
        return offsets_of_counts(torch.bincount(self.indices, minlength=self.n_columns))

    def row_sums(
        self, values: Float[Tensor, " nnz"], vectors: Float[Tensor, "n_columns d"]
    ) -> Float[Tensor, "n_rows d"]:
        """`to_dense() @ vectors` for the given values, without building the dense rows."""
        return weighted_bags(self.indices, self.row_offsets, values, vectors)

    def column_sums(
        self, values: Float[Tensor, " nnz"], vectors: Float[Tensor, "n_rows d"]
    ) -> Float[Tensor, "n_columns d"]:
        """`to_dense().T @ vectors` for the given values (in row order) without building the dense rows."""
        return weighted_bags(self.rows_by_column, self.column_offsets, values[self.column_order], vectors)


def weighted_bags(
    rows: Int[Tensor, " n"],
    offsets: Int[Tensor, " n_bags_plus_one"],
    weights: Float[Tensor, " n"],
    vectors: Float[Tensor, "n_vectors d"],
) -> Float[Tensor, "n_bags d"]:
    """Bag b is the sum of weights[i] * vectors[rows[i]] over i from offsets[b] to offsets[b + 1]."""
    return F.embedding_bag(rows, vectors, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def offsets_of_counts(counts: Int[Tensor, " n_rows"]) -> Int[Tensor, " n_rows_plus_one"]:
    """Row offsets from the number of entries per row."""
    return F.pad(counts.cumsum(0), (1, 0))


def stacked(blocks: Sequence[SparseRows]) -> SparseRows:
    """Rows `[n n_columns]` of several blocks, one under the other."""
    offsets = offsets_of_counts(torch.cat([rows.offsets.diff() for rows in blocks]))
    values, indices = (torch.cat([getattr(rows, name) for rows in blocks]) for name in ("values", "indices"))
    return SparseRows(values, indices, offsets, (len(offsets) - 1, blocks[0].n_columns))
