"""How strongly pairs of latents are active together, on one token or with attention between two: E[a_i a_j]."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.metrics.co_firing import rows_between
from sae_toolkit.sparse_rows import SparseRows

MOST_PAIRS = 2**26
"""Pairs in memory: half a gigabyte."""
ENTRIES_AT_ONCE = 2**22
"""Of dense latents: 32 MB."""


class MeanProducts:
    """Streamed E[a_i a_j] over the tokens of what reads; 8 bytes per pair of latents, at most half a gigabyte."""

    def __init__(self, d_writer: int, d_reader: int) -> None:
        if d_writer * d_reader > MOST_PAIRS:
            raise ValueError(
                f"MeanProducts: {d_writer} x {d_reader} pairs of latents asked, at most {MOST_PAIRS} are kept. Select "
                "some latents of either SAE."
            )
        self.n_tokens = 0
        self.sums = torch.zeros(d_writer, d_reader, dtype=torch.float64)

    def update(self, writer: SparseRows, reader: SparseRows) -> None:
        """Latents of both SAEs on the same tokens, `[n d_writer]` and `[n d_reader]`."""
        self.check(writer, reader)
        step = max(1, ENTRIES_AT_ONCE // reader.n_columns)
        for start in range(0, reader.n_rows, step):
            stop = min(start + step, reader.n_rows)
            self.add(rows_between(writer, start, stop), double_rows(rows_between(reader, start, stop)))
        self.n_tokens += reader.n_rows

    def update_through(self, pattern: Float[Tensor, "ctx ctx"], writer: SparseRows, reader: SparseRows) -> None:
        """One row of text: adds up A_ts a_i(s) a_j(t) over all pairs of its tokens t and s.

        `pattern`: how much each token (row) attends to each (column); with a norm, divide its columns by their scales.
        """
        self.check(writer, reader)
        if pattern.shape[0] != reader.n_rows:
            raise ValueError(
                f"MeanProducts: a pattern of {tuple(pattern.shape)} and latents of {reader.n_rows} tokens given. Give "
                "those of one row of text."
            )
        self.add(writer, pattern.detach().double().T @ double_rows(reader))
        self.n_tokens += reader.n_rows

    def add(self, writer: SparseRows, reader: Float64[Tensor, "n d_reader"]) -> None:
        """Adds writer^T @ reader; latents that did not fire cost nothing."""
        self.sums += writer.places.column_sums(writer.values.detach().double(), reader)

    def check(self, writer: SparseRows, reader: SparseRows) -> None:
        """Refuses latents of other SAEs or of different tokens."""
        if (writer.n_columns, reader.n_columns) != tuple(self.sums.shape) or writer.n_rows != reader.n_rows:
            raise ValueError(
                f"MeanProducts: latents of shapes {writer.shape} and {reader.shape} given for pairs "
                f"{tuple(self.sums.shape)}. Give the latents of both SAEs on the same tokens."
            )

    def mean(self) -> Float64[Tensor, "d_writer d_reader"]:
        """Per token of what reads."""
        if self.n_tokens == 0:
            raise ValueError("MeanProducts: no token seen. Call update first.")
        return self.sums / self.n_tokens


def double_rows(rows: SparseRows) -> Float64[Tensor, "n d"]:
    """Dense, in float64, without a graph."""
    return rows.to_dense().detach().double()
