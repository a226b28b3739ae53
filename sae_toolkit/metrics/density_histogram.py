"""How many latents fire how often, in even steps of the logarithm, with a place of its own for those that never do."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int
from torch import Tensor

BIN = 0.125
"""Width of a bin in powers of ten."""


class DensityHistogram(NamedTuple):
    """Counts of latents by log10 of the share of samples in which they fire."""

    edges: Float64[np.ndarray, " n_bins_plus_one"]
    """Log10 of firing rates, up to 0 (always)."""
    counts: Int[np.ndarray, " n_bins"]
    n_dead: int
    """Latents that never fired; in no bin."""


def density_histogram(firing_rates: Float[Tensor, " d_sae"], *, lowest: int | None = None) -> DensityHistogram:
    """Of the firing rates of `Sparsity.firing_rates`; rates below 10^`lowest` count in the first bin.

    Without `lowest`, the bins begin at the power of ten at or below the rarest latent that fires, and at 0.01 at most.
    """
    rates = firing_rates.detach().cpu().double().numpy()
    fires = rates[rates > 0]
    start = lowest_power(rates) if lowest is None else lowest
    edges = np.arange(start, BIN / 2, BIN)
    counts, _ = np.histogram(np.log10(fires).clip(edges[0], 0), bins=edges)
    return DensityHistogram(edges, counts, int((rates == 0).sum()))


def lowest_power(rates: Float64[np.ndarray, " n"]) -> int:
    """The power of ten at which bins for these rates begin."""
    return int(np.floor(np.log10(min([0.01, *rates[rates > 0]]))))
