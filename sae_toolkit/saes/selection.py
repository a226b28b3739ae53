"""Which latents are kept: exact top-k of each row, of the whole batch, or all above a threshold.

Nothing is sorted that cannot be among the winners, and `[batch, d_sae]` pre-activations never exist at once. Plain
references are `torch.topk` of `dense_pre_acts` by row, and of its flattened form. Nothing here carries a gradient;
`sparse_ops.with_encoder_gradient` adds it.

Ranking in bfloat16 (training only, by choice) multiplies in half the time: a quarter more candidates than wanted are
taken from the rounded product, their pre-activations are computed anew in full precision, and the largest of those win.
"""

from collections.abc import Callable, Iterator
from math import ceil, gcd
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.saes.sparse_ops import gathered_dots
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts

FAN = 4
"""Columns per group where group maxima are ranked first; of 2 to 16 the fastest at 6,144 columns."""

CHUNK_ELEMENTS = {"cpu": 2**23, "cuda": 2**28}
"""Pre-activations that exist at once, if those are at least `CHUNK_ROWS` rows: 32 MB; a GPU wants larger products."""

CHUNK_ROWS = 512
"""Below this a product reads its weights too often for its work: with 85 rows of 24,576 columns it took 1.5 times as
long."""

PROBE_ROWS = 64
"""Rows that are looked at first where it is not known whether few latents are active, or many."""

GUESS_MARGINS = (1.4, 4.0, float("inf"))
"""How many times as many entries as wanted the guessed bound should let through; the next if those were too few."""

GUESS_SAMPLE = 2**17
"""Entries of the first rows from which the bound is guessed."""


class Encoder(NamedTuple):
    """The weights that give pre-activations (x - b_dec) @ W_enc + b_enc."""

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_in"]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]


Picking = Callable[[Tensor], Tensor]
"""Pre-activations `[n_rows d_sae]` in, the columns chosen in each row out `[n_rows k]`."""


def top_of_rows(x: Float[Tensor, "batch d_in"], encoder: Encoder, *, k: int, rank_in: torch.dtype) -> SparseRows:
    """The k largest pre-activations of every row; `rank_in` is the precision in which candidates are found."""
    n_candidates = k if rank_in == x.dtype else with_spares(k, encoder.d_sae)
    found = [top_per_row(pre_acts, n_candidates) for _, pre_acts in pre_acts_by_rows(x, encoder, rank_in)]
    values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    if rank_in != x.dtype:
        rows = torch.arange(x.shape[0], device=x.device).repeat_interleave(n_candidates)
        exact = pre_acts_at(x, encoder, rows, indices.reshape(-1))
        values, best = exact.reshape(indices.shape).topk(k, dim=1, sorted=False)
        indices = indices.gather(1, best)
    return SparseRows.from_topk(values, indices, encoder.d_sae)


def picked_of_rows(x: Float[Tensor, "batch d_in"], encoder: Encoder, pick: Picking) -> SparseRows:
    """The pre-activations that `pick` chooses in every row, as many in each."""
    found = []
    for _, pre_acts in pre_acts_by_rows(x, encoder, x.dtype):
        columns = pick(pre_acts)
        found.append((pre_acts.gather(1, columns), columns))
    values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return SparseRows.from_topk(values, indices, encoder.d_sae)


def top_of_batch(x: Float[Tensor, "batch d_in"], encoder: Encoder, *, n: int, rank_in: torch.dtype) -> SparseRows:
    """The n largest positive pre-activations of the whole batch, fewer where fewer are positive."""
    if rank_in == x.dtype:
        return rows_of_entries(largest_positive(x, encoder, n=n, rank_in=rank_in), x.shape[0], encoder.d_sae)
    n_candidates = with_spares(n, x.shape[0] * encoder.d_sae)
    places = largest_positive(x, encoder, n=n_candidates, rank_in=rank_in).places
    values = pre_acts_at(x, encoder, places // encoder.d_sae, places % encoder.d_sae)
    values, best = values.topk(min(n, values.numel()), sorted=False)
    positive = values > 0
    return rows_of_entries(Entries(values[positive], places[best[positive]]), x.shape[0], encoder.d_sae)


def all_above(x: Float[Tensor, "batch d_in"], encoder: Encoder, *, threshold: float) -> SparseRows:
    """All pre-activations above one threshold; a row's selection depends on that row alone."""
    selected = few_above(x, encoder, threshold=threshold, at_most=1.0)
    assert selected is not None
    return selected


def few_above(
    x: Float[Tensor, "batch d_in"], encoder: Encoder, *, threshold: float | Float[Tensor, " d_sae"], at_most: float
) -> SparseRows | None:
    """All pre-activations above a threshold (one for all latents, or one for each).

    None as soon as a larger share than `at_most` of some neighbouring rows is above.
    """
    if at_most < 1 and share_above(x[:PROBE_ROWS], encoder, threshold) > at_most:
        return None
    found = []
    for first, pre_acts in pre_acts_by_rows(x, encoder, x.dtype):
        above = pre_acts > threshold
        if at_most < 1 and int(above.count_nonzero()) > at_most * above.numel():
            return None
        found.append(entries_where(above, pre_acts, first))
    return rows_of_entries(joined(found), x.shape[0], encoder.d_sae)


def share_above(x: Float[Tensor, "batch d_in"], encoder: Encoder, threshold: float | Float[Tensor, " d_sae"]) -> float:
    """Which share of all pre-activations is above a threshold."""
    counts = [int((pre_acts > threshold).count_nonzero()) for _, pre_acts in pre_acts_by_rows(x, encoder, x.dtype)]
    return sum(counts) / max(1, x.shape[0] * encoder.d_sae)


def top_per_row(
    values: Float[Tensor, "n_rows width"], k: int
) -> tuple[Float[Tensor, "n_rows k"], Int[Tensor, "n_rows k"]]:
    """`values.topk(k, dim=1)` in any order: the k groups with the largest maxima hold the k largest entries."""
    n_rows, width = values.shape
    n_groups = width // FAN
    if n_groups < 2 * k:
        return values.topk(k, dim=1, sorted=False)
    grouped = values[:, : FAN * n_groups].reshape(n_rows, FAN, n_groups)  # strided groups: whole rows are compared
    _, groups = top_per_row(grouped.amax(1), k)
    firsts = torch.arange(0, FAN * n_groups, n_groups, device=values.device)
    left_over = torch.arange(FAN * n_groups, width, device=values.device).expand(n_rows, -1)
    members = torch.cat([(groups.unsqueeze(1) + firsts.view(1, FAN, 1)).flatten(1), left_over], dim=1)
    top, best = values.gather(1, members).topk(k, dim=1, sorted=False)
    return top, members.gather(1, best)


class Entries(NamedTuple):
    """Some entries of a matrix."""

    values: Float[Tensor, " n"]
    places: Int[Tensor, " n"]
    """Positions in the flattened matrix."""


def largest_positive(x: Float[Tensor, "batch d_in"], encoder: Encoder, *, n: int, rank_in: torch.dtype) -> Entries:
    """The n largest positive pre-activations of the batch as `rank_in` gives them, in no particular order.

    The bound that keeps most others from being looked at is guessed anew from the first rows of each batch, so that a
    selection has no memory.
    """
    share = n / max(1, x.shape[0] * encoder.d_sae)
    for margin in GUESS_MARGINS:
        bound, found = None, []
        for first, pre_acts in pre_acts_by_rows(x, encoder, rank_in):
            bound = guessed_bound(pre_acts, margin * share) if bound is None else bound
            found.append(entries_where(pre_acts > bound, pre_acts, first))
        entries = joined(found)
        if entries.values.numel() >= n:
            values, best = entries.values.topk(n, sorted=False)
            return Entries(values, entries.places[best])
        if bound == 0:
            break
    return entries


def guessed_bound(pre_acts: Float[Tensor, "n_rows d_sae"], share: float) -> float:
    """A value that about this share of all entries exceeds, 0 where fewer are positive."""
    flat = pre_acts.reshape(-1)
    stride = max(1, flat.numel() // GUESS_SAMPLE)
    while gcd(stride, pre_acts.shape[1]) > 1:  # every column must have its turn
        stride += 1
    sample = flat[::stride]
    rank = ceil(share * sample.numel()) if share < 1 else sample.numel() + 1
    return max(0.0, float(sample.topk(rank).values[-1])) if 0 < rank <= sample.numel() else 0.0


def entries_where(
    wanted: Bool[Tensor, "n_rows d_sae"], pre_acts: Float[Tensor, "n_rows d_sae"], first_row: int
) -> Entries:
    """The wanted entries, placed in the matrix of which these rows are a part."""
    places = wanted.reshape(-1).nonzero().squeeze(1)
    return Entries(pre_acts.reshape(-1)[places], places + first_row * pre_acts.shape[1])


def joined(parts: list[Entries]) -> Entries:
    """Entries of several parts of one matrix."""
    return Entries(torch.cat([part.values for part in parts]), torch.cat([part.places for part in parts]))


def rows_of_entries(entries: Entries, n_rows: int, n_columns: int) -> SparseRows:
    """The entries as sparse rows, columns ascending."""
    places, order = entries.places.sort()
    counts = torch.bincount(places // n_columns, minlength=n_rows)
    return SparseRows(entries.values[order], places % n_columns, offsets_of_counts(counts), (n_rows, n_columns))


def pre_acts_by_rows(
    x: Float[Tensor, "batch d_in"], encoder: Encoder, dtype: torch.dtype
) -> Iterator[tuple[int, Float[Tensor, "n_rows d_sae"]]]:
    """Pre-activations of a few rows at a time, each with the number of its first row; at least one chunk.

    Each chunk lies where the one before it lay.
    """
    centred = (x - encoder.b_dec).to(dtype)
    W_enc, b_enc = encoder.W_enc.to(dtype), encoder.b_enc.to(dtype)
    n_chunks = max(1, ceil(x.shape[0] / rows_at_once(x.device.type, encoder.d_sae)))
    n_rows = max(1, ceil(x.shape[0] / n_chunks))
    reused = torch.empty(min(n_rows, x.shape[0]), encoder.d_sae, dtype=dtype, device=x.device)
    for first in range(0, max(1, x.shape[0]), n_rows):
        chunk = centred[first : first + n_rows]
        yield first, torch.addmm(b_enc, chunk, W_enc, out=reused[: chunk.shape[0]])


def rows_at_once(device_type: str, d_sae: int) -> int:
    """For how many rows pre-activations exist at the same time, at most."""
    return max(CHUNK_ROWS, CHUNK_ELEMENTS[device_type] // d_sae)


def pre_acts_at(
    x: Float[Tensor, "batch d_in"], encoder: Encoder, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Single pre-activations in full precision."""
    vectors, by_column = encoder.W_enc.T.contiguous(), columns.argsort()
    dots = gathered_dots(x - encoder.b_dec, vectors, rows, columns, order=by_column)
    return dots + encoder.b_enc[columns]


def with_spares(n: int, n_available: int) -> int:
    """A quarter more than n, as far as there are so many."""
    return min(n_available, n + max(1, n // 4))
