"""A matrix kept as the product of two thin ones: circuits of a whole vocabulary have d_head dimensions, not d_vocab."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

MOST_ENTRIES = 2**24
"""Entries that exist at a time: 64 MB in float32."""


class Entries(NamedTuple):
    """Some entries of a matrix, strongest first."""

    rows: Int[Tensor, " n"]
    columns: Int[Tensor, " n"]
    values: Float[Tensor, " n"]


@dataclass(frozen=True)
class Factored:
    """left @ right, never multiplied out beyond a few rows at a time."""

    left: Float[Tensor, "n rank"]
    right: Float[Tensor, "rank m"]

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    def __matmul__(self, other: "Factored") -> "Factored":
        """The product, with the smaller of both ranks."""
        middle = self.right @ other.left
        if middle.shape[0] <= middle.shape[1]:
            return Factored(self.left, middle @ other.right)
        return Factored(self.left @ middle, other.right)

    @property
    def transposed(self) -> "Factored":
        return Factored(self.right.T, self.left.T)

    def between(self, sources: Float[Tensor, "n_sources n"], targets: Float[Tensor, "m n_targets"]) -> "Factored":
        """sources @ self @ targets: a map of the residual stream in terms of what writes and what reads there."""
        return Factored(sources @ self.left, self.right @ targets)

    def centred(self) -> "Factored":
        """Each row minus its mean: what a softmax over the row sees."""
        return Factored(self.left, self.right - self.right.mean(1, keepdim=True))

    def dense(self) -> Float[Tensor, "n m"]:
        """All of it, where that is at most 2^24 entries."""
        n, m = self.shape
        if n * m > MOST_ENTRIES:
            raise ValueError(
                f"Factored.dense: {n} x {m} entries asked, more than {MOST_ENTRIES}. Take `strongest`, `top_in_rows` "
                "or a few rows of `left`."
            )
        return self.left @ self.right

    def chunks(self) -> Iterator[tuple[slice, Float[Tensor, "n_chunk m"]]]:
        """All rows, as many at a time as may exist."""
        n, m = self.shape
        step = max(1, MOST_ENTRIES // max(m, 1))
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            yield rows, self.left[rows] @ self.right

    def norm(self) -> float:
        """Frobenius norm, from the small Gram matrices: tr(L^T L R R^T) ** 1/2."""
        left, right = self.left.double(), self.right.double()
        return sqrt(max(float(((left.T @ left) * (right @ right.T)).sum()), 0.0))

    def eigenvalues(self) -> Complex[Tensor, " rank"]:
        """Those that can differ from 0, of a square matrix: L R and the small R L have the same."""
        if self.shape[0] != self.shape[1]:
            raise ValueError(
                f"Factored.eigenvalues: a matrix of {self.shape} given. Only square ones have eigenvalues."
            )
        found: Tensor = torch.linalg.eigvals(self.right.double() @ self.left.double())
        return found

    def strongest(self, n: int, weigh: Callable[[slice], Float[Tensor, "n_chunk m"]] | None = None) -> Entries:
        """The n entries of largest magnitude in the whole matrix; `weigh` gives factors for some rows."""
        best = Entries(*(torch.empty(0, dtype=kind) for kind in (torch.long, torch.long, self.left.dtype)))
        for rows, chunk in self.chunks():
            weighed = chunk if weigh is None else chunk * weigh(rows).to(chunk)
            flat = weighed.flatten()
            places = flat.abs().topk(min(n, len(flat))).indices
            found = Entries(places // self.shape[1] + rows.start, places % self.shape[1], flat[places])
            joined = [torch.cat(parts) for parts in zip(best, found, strict=True)]
            kept = joined[2].abs().topk(min(n, len(joined[2]))).indices
            best = Entries(*(part[kept] for part in joined))
        return best

    def top_in_rows(self, n: int) -> tuple[Float[Tensor, "n_rows n_top"], Int[Tensor, "n_rows n_top"]]:
        """The n largest values of every row, and their columns."""
        found = [chunk.topk(min(n, self.shape[1]), dim=1) for _, chunk in self.chunks()]
        return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])
