"""Stretches of held-out samples with the latents that are not 0 on them, sorted by latent."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from sae_toolkit.analysis.held_out import HeldOut
from sae_toolkit.metrics.co_firing import select_entries
from sae_toolkit.metrics.evaluate import rows_on_cpu
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE, SAEOutput
from sae_toolkit.sparse_rows import SparseRows, stacked

FIRST_ENTRIES, MOST_ENTRIES = 2**19, 2**20
"""Nonzero activations in the first chunk, and at most in later ones, which grow: at the start of a stream nearly every
entry is among the best so far and has to be sorted."""
MOST_SAMPLES = 2**17

Entries = Int[np.ndarray, " n"]
"""Numbers of entries of a chunk."""


class LatentChunk(NamedTuple):
    """Consecutive held-out samples: where the chosen latents are not 0, latent after latent."""

    starts: Int[np.ndarray, " n_latents_plus_one"]
    """The c-th chosen latent owns entries starts[c] to starts[c + 1]."""
    samples: Int[np.ndarray, " n_entries"]
    """The sample of each entry, counted from the first of the chunk; ascending within a latent."""
    values: Float32[np.ndarray, " n_entries"]
    n_before: int
    """Samples read before this chunk."""
    places: Int[np.ndarray, " n_samples"]
    """Where each sample stands in the rows, counted row after row."""
    token_rows: Int[np.ndarray, "rows context"]
    kept: Bool[np.ndarray, "rows context"]
    positions: Int[np.ndarray, " n_samples"] | None
    documents: Int[np.ndarray, " n_samples"] | None
    coefficients: SparseRows | None
    """Which true features fire, `[n_samples n_features]`."""

    @property
    def latents(self) -> Int[np.ndarray, " n_entries"]:
        """The place among the chosen latents of each entry's latent."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def latents_of(sae: AbstractDictionary, x: Float[Tensor, "batch d_in"]) -> SparseRows:
    """Sparse latents on the CPU, by the encoder alone where it can be had alone."""
    latents = sae.forward_latents(x) if isinstance(sae, AbstractSAE) else sae.forward(x).latent_acts
    return rows_on_cpu(SAEOutput(x, latents).sparse_latents())


def of_chosen(latents: SparseRows, place: Int[Tensor, " d_sae"]) -> SparseRows:
    """Some latents alone: latent i becomes column place[i], and is left out where that is -1."""
    columns = place[latents.indices]
    chosen = select_entries(latents, columns >= 0)
    n_chosen = int((place >= 0).sum())
    return SparseRows(chosen.values, place[chosen.indices], chosen.offsets, (*latents.shape[:-1], n_chosen))


class ChunkBuilder:
    """Collects samples until a chunk is full: an entry takes 8 bytes, and as many again while it is sorted."""

    def __init__(self) -> None:
        self.n_given, self.limit = 0, FIRST_ENTRIES
        self.parts: list[tuple[HeldOut, SparseRows]] = []

    def add(self, part: HeldOut, latents: SparseRows) -> LatentChunk | None:
        """One more part and its chosen latents `[n n_latents]`; the chunk, once it is full."""
        self.parts.append((part, latents))
        n_entries = sum(len(rows.values) for _, rows in self.parts)
        if n_entries < self.limit and sum(rows.n_rows for _, rows in self.parts) < MOST_SAMPLES:
            return None
        self.limit = min(2 * self.limit, MOST_ENTRIES)
        return self.take()

    def take(self) -> LatentChunk | None:
        """What has been collected; None where that is nothing."""
        if not self.parts:
            return None
        parts, latents = zip(*self.parts, strict=True)
        self.parts = []
        chunk = chunk_of(parts, stacked(latents), self.n_given)
        self.n_given += len(chunk.places)
        return chunk


def chunk_of(parts: Sequence[HeldOut], latents: SparseRows, n_before: int) -> LatentChunk:
    """Parts one after the other as one chunk."""
    from scipy import sparse  # noqa: PLC0415  (slow import)

    values = latents.values.detach().float().numpy()
    by_sample = sparse.csr_matrix((values, latents.indices.numpy(), latents.offsets.numpy()), shape=latents.shape)
    by_latent = by_sample.tocsc()  # a counting sort
    by_latent.eliminate_zeros()
    kept = torch.cat([part.kept for part in parts])
    batches = [part.batch for part in parts]
    truth = [batch.coefficients for batch in batches if batch.coefficients is not None]
    return LatentChunk(
        starts=by_latent.indptr.astype(np.int64),
        samples=by_latent.indices,
        values=by_latent.data,
        n_before=n_before,
        places=kept.flatten().nonzero()[:, 0].numpy(),
        token_rows=torch.cat([part.token_rows for part in parts]).int().numpy(),
        kept=kept.numpy(),
        positions=joined([batch.positions for batch in batches]),
        documents=joined([batch.document_ids for batch in batches]),
        coefficients=stacked(truth) if truth else None,
    )


def joined(labels: Sequence[Int[Tensor, " _"] | None]) -> Int[np.ndarray, " n"] | None:
    """Labels one after the other; None where they are unknown."""
    known = [label.cpu() for label in labels if label is not None]
    return torch.cat(known).long().numpy() if known else None
