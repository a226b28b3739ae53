"""What stands around a token: the ids of its window, and what a latent does at each of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from sae_toolkit.analysis.latent_chunks import Entries, LatentChunk


class Windows(NamedTuple):
    """Windows of 2 * half_width + 1 tokens with the entry's own in the middle; they end where its row of text ends."""

    token_ids: Int[np.ndarray, "n width"]
    """-1 outside the row, and where samples are no tokens."""
    activations: Float32[np.ndarray, "n width"]
    """Of the entry's latent; NaN outside the row and for tokens that are left out."""


def windows_of(chunk: LatentChunk, entries: Entries, latents: Entries, half_width: int) -> Windows:
    """Windows around some entries; `latents` are theirs."""
    context = chunk.token_rows.shape[1]
    sides = (0, 0), (half_width, half_width)
    token_ids = np.pad(chunk.token_rows, sides, constant_values=-1)
    kept = np.pad(chunk.kept, sides, constant_values=False)
    steps = np.arange(-half_width, half_width + 1)
    place = chunk.places[chunk.samples[entries]]
    row, column = np.divmod(place, context)
    inside = (row * (context + 2 * half_width) + column + half_width)[:, None] + steps
    activations = np.where(kept.reshape(-1)[inside], np.float32(0), np.float32(np.nan))
    # Within a latent samples ascend, so what it does nearby is among the entries next to this one.
    beside = entries[:, None] + steps
    own = (beside >= chunk.starts[latents][:, None]) & (beside < chunk.starts[latents + 1][:, None])
    beside = np.where(own, beside, entries[:, None])
    there = chunk.places[chunk.samples[beside]]
    distance = there - place[:, None]
    own &= (np.abs(distance) <= half_width) & (there // context == row[:, None])
    which, _ = np.nonzero(own)
    activations[which, distance[own] + half_width] = chunk.values[beside[own]]
    return Windows(token_ids.reshape(-1)[inside], activations)
