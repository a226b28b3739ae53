"""Which latents point where a latent points, by the cosine of what they write."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.analysis.latent_record import Neighbour
from sae_toolkit.metrics.matching import cosine_blocks, unit_rows


def nearest_latents(
    directions: Float[Tensor, "d_sae d_in"], latents: Sequence[int], n_top: int
) -> list[tuple[Neighbour, ...]]:
    """For each of some latents the n_top others of largest cosine, signed, largest first.

    Directions are compared in float64 (8 bytes per weight), a few million cosines at a time.
    """
    units = unit_rows(directions)
    chosen = torch.tensor(list(latents), dtype=torch.long)
    n = min(n_top, len(units) - 1)
    found: list[tuple[Neighbour, ...]] = []
    for block, cosines in cosine_blocks(units[chosen], units):
        cosines[torch.arange(len(cosines)), chosen[block]] = -torch.inf
        values, others = cosines.topk(n, dim=1)
        pairs = zip(others.tolist(), values.tolist(), strict=True)
        found += [as_latents(numbers, cosine) for numbers, cosine in pairs]
    return found


def as_latents(numbers: Sequence[int], values: Sequence[float]) -> tuple[Neighbour, ...]:
    """Latents as a list to be shown."""
    pairs = zip(numbers, values, strict=True)
    return tuple(Neighbour(index=number, label=f"latent {number}", value=value) for number, value in pairs)
