"""What firing tells about a label, from counts of what happens together; all logarithms are natural."""

from math import log
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from sae_toolkit.metrics.bootstrap import divide
from sae_toolkit.metrics.kept_latents import SparseMatrix

PerLatent = Float64[np.ndarray, " n_latents"]
Choice = Int[np.ndarray, " n_latents"]
"""One class per latent."""


class LabelCounts(NamedTuple):
    """In how many of `n` samples (1 stands for none) a latent fires, a class holds, and both do."""

    both: SparseMatrix
    """`[n_latents n_classes]`."""
    fires: PerLatent
    labels: Float64[np.ndarray, " n_classes"]
    n: int

    def at(self, choice: Choice) -> PerLatent:
        """`both` at one class per latent."""
        return entries_at(self.both, choice)


def count_labels(fires: SparseMatrix, labels: SparseMatrix) -> LabelCounts:
    """From indicators: firing `[n_latents n_samples]`, classes `[n_samples n_classes]`."""
    both = (fires @ labels).tocsr()
    held = np.asarray(labels.sum(axis=0), dtype=float).reshape(-1)
    return LabelCounts(both, fires.getnnz(axis=1).astype(float), held, max(labels.shape[0], 1))


def entries_at(matrix: SparseMatrix, choice: Choice) -> PerLatent:
    """One entry of every row."""
    if len(choice) == 0:
        return np.zeros(0)
    return np.asarray(matrix[np.arange(len(choice)), choice], dtype=float).reshape(-1)


def largest_entries(matrix: SparseMatrix) -> Choice:
    """The column of the largest entry of every row, the first of equals."""
    if matrix.shape[0] == 0:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(matrix.argmax(axis=1)).reshape(-1).astype(np.int64)


def purity(counts: LabelCounts, choice: Choice) -> PerLatent:
    """P(class | fires)."""
    return divide(counts.at(choice), counts.fires, otherwise=np.nan)


def purest_class(counts: LabelCounts) -> Choice:
    """The class of largest P(class | fires)."""
    return largest_entries(counts.both)


def lift(counts: LabelCounts, choice: Choice) -> PerLatent:
    """(P(class | fires) - P(class)) / (1 - P(class)): 0 at chance, 1 where the class always holds with the latent.

    A class that holds for every sample lifts nothing: 0.
    """
    base = counts.labels[choice] / counts.n
    return divide(purity(counts, choice) - base, 1 - base, otherwise=0.0)


def most_lifted_class(counts: LabelCounts) -> Choice:
    """The class of largest lift among those that hold at least once with the latent."""
    lifts = counts.both.astype(float)
    rows = np.repeat(np.arange(len(counts.fires)), np.diff(lifts.indptr))
    base = counts.labels[lifts.indices] / counts.n
    rate = lifts.data / counts.fires[rows]
    lifts.data = 2 + np.maximum(divide(rate - base, 1 - base, otherwise=0.0), -1)  # above the zeros not stored
    return largest_entries(lifts)


def x_log_x(x: Float[np.ndarray, "*any"]) -> Float64[np.ndarray, "*any"]:
    """x ln x, 0 at 0."""
    result: Float64[np.ndarray, "*any"] = x * np.log(np.where(x > 0, x, 1.0))
    return result


def entropy(counts: Float64[np.ndarray, " n"]) -> float:
    """Of the distribution that the counts are proportional to; NaN where there is none."""
    total = float(counts.sum())
    return float(np.log(total) - x_log_x(counts).sum() / total) if total else float("nan")


def binary_entropy(count: PerLatent, n: int) -> PerLatent:
    """Of an event that happened `count` times in n."""
    nats: PerLatent = log(n) - (x_log_x(count) + x_log_x(n - count)) / n
    return nats


def entropy_given_firing(counts: LabelCounts) -> PerLatent:
    """H(y | the latent fires), classes exclusive; NaN where it never fires."""
    sums = row_sums_of(counts.both, x_log_x(counts.both.data.astype(float)))
    total = counts.fires
    nats: PerLatent = np.log(np.where(total > 0, total, 1.0)) - divide(sums, total, otherwise=np.nan)
    return nats


def label_information(counts: LabelCounts) -> PerLatent:
    """I(fire; y), y the class out of exclusive ones: H(fire) + H(y) - H(fire, y)."""
    n, both = counts.n, counts.both
    held, with_it = counts.labels[both.indices], both.data.astype(float)
    silent = x_log_x(counts.labels).sum() + row_sums_of(both, x_log_x(held - with_it) - x_log_x(held))
    joint = log(n) - (row_sums_of(both, x_log_x(with_it)) + silent) / n
    nats: PerLatent = binary_entropy(counts.fires, n) + entropy(counts.labels) - joint
    return nats


def class_information(counts: LabelCounts, choice: Choice) -> PerLatent:
    """I(fire; one class holds), with one class per latent."""
    n, both, held = counts.n, counts.at(choice), counts.labels[choice]
    cells = (both, counts.fires - both, held - both, n - counts.fires - held + both)
    joint = log(n) - sum(x_log_x(cell) for cell in cells) / n
    nats: PerLatent = binary_entropy(counts.fires, n) + binary_entropy(held, n) - joint
    return nats


def row_sums_of(matrix: SparseMatrix, data: Float64[np.ndarray, " nnz"]) -> Float64[np.ndarray, " n_rows"]:
    """Sums over the rows of a matrix that has `data` where `matrix` has entries."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    sums: Float64[np.ndarray, " n_rows"] = np.bincount(rows, weights=data, minlength=matrix.shape[0]).astype(float)
    return sums
