"""Latents against true features: cosines, ordered so that a recovered dictionary shows as a diagonal."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sae_toolkit.metrics.matching import Matching, match_latents, unit_rows
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL
from sae_toolkit.report.svg import HALF, drawn_as_svg

if TYPE_CHECKING:
    import matplotlib.figure

MOST_SHOWN = 256
"""Rows and columns: a pixel each."""
LEVELS = 32
"""Steps of |cosine| that the colours distinguish; more would be noise that does not compress."""
POSITIVE, NEGATIVE = (24, 120, 184), (214, 98, 20)
"""Readable on light and on dark ground: the cosine is the opacity, so that 0 is the ground itself."""


def match_matrix_panel(
    name: str,
    directions: Float[Tensor, "n_features d_in"],
    decoder: Float[Tensor, "d_sae d_in"],
    matching: Matching | None = None,
) -> FigurePanel:
    """The figure of the SAE called `name`, with its words."""
    n_features, n_latents = len(directions), len(decoder)
    shown = f"All {n_latents:,} latents and {n_features:,} features are shown."
    if max(n_features, n_latents) > MOST_SHOWN:
        shown = (
            f"Shown are {min(n_latents, MOST_SHOWN):,} of {n_latents:,} latents and {min(n_features, MOST_SHOWN):,} of "
            f"{n_features:,} features, evenly spaced in this order."
        )
    return FigurePanel(
        title=f"Which latent found which feature: {name}",
        caption="Cosine of every latent with every true feature; latents stand in the order of the features they are "
        "matched to, what is left without a partner comes last. Good: one dark diagonal on a pale ground. "
        "Gaps in the diagonal are features not found, a second mark in a column is a duplicate, a second mark in a row "
        f"a latent that mixes features. {shown}",
        svg=match_matrix(directions, decoder, matching),
    )


def order_by_match(
    matching: Matching,
) -> tuple[Int[Tensor, " n_features"], Int[Tensor, " d_sae"]]:
    """Features and latents with the matched pairs first, in the order of the features; the rest after them."""
    has_partner = matching.latent >= 0
    pairs, alone = has_partner.nonzero().squeeze(1), (~has_partner).nonzero().squeeze(1)
    partners = matching.latent[pairs]
    free = torch.ones(len(matching.best_feature), dtype=torch.bool)
    free[partners] = False
    return torch.cat([pairs, alone]), torch.cat([partners, free.nonzero().squeeze(1)])


def evenly(order: Int[Tensor, " n"], step: float) -> Int[Tensor, " shown"]:
    """Every step-th entry, from the first on."""
    return order[(torch.arange(int(np.ceil(len(order) / step))) * step).long()]


@drawn_as_svg
def match_matrix(
    directions: Float[Tensor, "n_features d_in"],
    decoder: Float[Tensor, "d_sae d_in"],
    matching: Matching | None = None,
) -> "matplotlib.figure.Figure":
    """Heat map with colour bar; `matching` is computed (all latents alive) where it is not given."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    matching = match_latents(directions, decoder) if matching is None else matching
    features, latents = order_by_match(matching)
    step = max(1.0, len(features) / MOST_SHOWN, len(latents) / MOST_SHOWN)  # one for both keeps the diagonal
    features, latents = evenly(features, step), evenly(latents, step)
    cosines = (unit_rows(decoder[latents.to(decoder.device)]) @ unit_rows(directions[features.to(directions.device)]).T)

    figure = Figure(figsize=(HALF, 4.5))
    axis, bar = figure.subplots(1, 2, width_ratios=(30, 1))
    axis.imshow(diverging_pixels(cosines.numpy()), interpolation="none", aspect="auto")
    axis.grid(visible=False)
    axis.set_xlabel("true feature")
    axis.set_ylabel("latent, in the order of its feature")
    for spine in axis.spines.values():
        spine.set_visible(True)
    for ticks, n in ((axis.xaxis, len(features)), (axis.yaxis, len(latents))):
        ticks.set_ticks([0, n - 1], ["1", f"{n:,}" if step == 1 else f"{n:,}th"])
    scale = np.linspace(1, -1, 2 * LEVELS + 1)[:, None]
    bar.imshow(diverging_pixels(scale), interpolation="none", aspect="auto", extent=(0, 1, -1, 1))
    bar.set_xticks([])
    bar.set_yticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
    bar.yaxis.tick_right()
    bar.grid(visible=False)
    bar.set_title("cosine", fontsize=8, weight="normal", color=SENTINEL["muted"])
    return figure


def diverging_pixels(values: Float[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "rows columns 4"]:
    """RGBA: blue above 0, orange below, opacity |value| in `LEVELS` steps."""
    opacity = np.round(np.abs(values).clip(0, 1) * LEVELS) / LEVELS
    colour = np.where(values[..., None] >= 0, np.array(POSITIVE), np.array(NEGATIVE))
    pixels: np.ndarray = np.concatenate([colour * (opacity[..., None] > 0), 255 * opacity[..., None]], axis=-1)
    return pixels.round().astype(np.uint8)
