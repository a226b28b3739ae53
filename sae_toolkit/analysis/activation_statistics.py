"""How often and how strongly each latent fires: exact counts, float64 sums and histograms in one pass."""

from math import ceil

import numpy as np
from jaxtyping import Float32, Float64, Int

from sae_toolkit.analysis.latent_chunks import LatentChunk
from sae_toolkit.analysis.latent_record import Histogram

LOWEST, HIGHEST = -20, 20
"""Powers of two between which activations are told apart; what lies outside goes into the outermost bins."""
BITS = 3
PER_OCTAVE = 2**BITS
"""Bins between a power of two and the next, of equal width: an edge is at most 1.125 times the one before it."""
N_BINS = PER_OCTAVE * (HIGHEST - LOWEST)
MOST_SHOWN = 30
"""Bins of a histogram as it is shown."""

Counts = Int[np.ndarray, " n_latents"]
PerLatent = Float64[np.ndarray, " n_latents"]


def strength_bins(values: Float32[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The bin of each |value|: exponent and first bits of the mantissa, so that edges are exact."""
    shown = np.abs(values).view(np.int32) >> (23 - BITS)
    bins: Int[np.ndarray, " n"] = np.clip(shown - (127 + LOWEST) * PER_OCTAVE, 0, N_BINS - 1).astype(np.int64)
    return bins


def strength_edges() -> Float64[np.ndarray, " n_bins_plus_one"]:
    """Bin b holds edges[b] <= |value| < edges[b + 1]."""
    octave, step = np.divmod(np.arange(N_BINS + 1), PER_OCTAVE)
    edges: Float64[np.ndarray, " n_bins_plus_one"] = np.ldexp(1 + step / PER_OCTAVE, octave + LOWEST)
    edges[0], edges[-1] = 0.0, np.inf
    return edges


class ActivationStatistics:
    """Density, mean, largest and histogram of the nonzero activations of some latents.

    Held are 2.6 kB per latent, twice that once one has been negative (signed variants), however many samples are seen.
    """

    def __init__(self, n_latents: int) -> None:
        self.n_samples = 0
        self.counts = np.zeros(n_latents, dtype=np.int64)
        self.sums = np.zeros(n_latents)
        self.highest, self.lowest = np.zeros(n_latents), np.zeros(n_latents)
        self.positive = np.zeros((n_latents, N_BINS), dtype=np.int64)
        self.negative: Int[np.ndarray, "n_latents n_bins"] | None = None

    def update(self, chunk: LatentChunk) -> None:
        """Adds one chunk."""
        self.n_samples += len(chunk.places)
        counts = np.diff(chunk.starts)
        self.counts += counts
        fired = np.flatnonzero(counts)
        if len(fired) == 0:
            return
        starts = chunk.starts[:-1][fired]
        self.sums[fired] += np.add.reduceat(chunk.values.astype(np.float64), starts)
        self.highest[fired] = np.maximum(self.highest[fired], np.maximum.reduceat(chunk.values, starts))
        self.lowest[fired] = np.minimum(self.lowest[fired], np.minimum.reduceat(chunk.values, starts))
        bins = chunk.latents * N_BINS + strength_bins(chunk.values)
        below = chunk.values < 0
        if not below.any():
            self.positive += self.table(bins)
            return
        self.negative = np.zeros_like(self.positive) if self.negative is None else self.negative
        self.negative += self.table(bins[below])
        self.positive += self.table(bins[~below])

    def table(self, bins: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n_latents n_bins"]:
        return np.bincount(bins, minlength=self.positive.size).reshape(self.positive.shape)

    def densities(self) -> PerLatent:
        """Share of samples on which each latent is not 0."""
        return self.counts / max(self.n_samples, 1)

    def means(self) -> PerLatent:
        """Over the samples on which the latent is not 0; NaN where there are none."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)

    def largest(self) -> PerLatent:
        """The activation farthest from 0, with its sign; 0 for a latent that never fired."""
        return np.where(self.highest >= -self.lowest, self.highest, self.lowest)

    def histogram(self, latent: int) -> Histogram | None:
        """Exact counts of nonzero activations in at most 30 bins whose widths grow with the activation."""
        if self.counts[latent] == 0:
            return None
        counts, edges = self.positive[latent], strength_edges()
        edges[-1] = np.nextafter(max(self.highest[latent], -self.lowest[latent]), np.inf)
        if self.negative is not None:
            counts = np.concatenate([self.negative[latent][::-1], counts])
            edges = np.concatenate([-edges[:0:-1], edges])
        occupied = np.flatnonzero(counts)
        first, end = int(occupied[0]), int(occupied[-1]) + 1
        starts = np.arange(first, end, ceil((end - first) / MOST_SHOWN))
        shown = np.add.reduceat(counts[:end], starts)
        return Histogram(edges=tuple(edges[[*starts, end]].tolist()), counts=tuple(shown.tolist()))

    def quantiles(self, latent: int, values: Float32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Which share of a latent's nonzero activations is weaker than each value, halves of its own bin counted.

        Right to within half the share that lies in the value's bin.
        """
        counts = self.positive[latent] if self.negative is None else self.positive[latent] + self.negative[latent]
        middle = np.cumsum(counts) - counts / 2
        shares: Float64[np.ndarray, " n"] = middle[strength_bins(values)] / max(counts.sum(), 1)
        return shares
