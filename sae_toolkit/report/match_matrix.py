"""Latents against true features: cosines, ordered so that a recovered dictionary shows as a diagonal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sae_toolkit.metrics.matching import Matching, match_latents, unit_rows
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL
from sae_toolkit.report.svg import HALF, WIDE, columns_for, drawn_as_svg, short, space

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

MOST_SHOWN = 256
"""Rows and columns: a pixel each."""
LEVELS = 32
"""Steps of |cosine| that the colours distinguish; more would be noise that does not compress."""
POSITIVE, NEGATIVE = (24, 120, 184), (214, 98, 20)
"""Readable on light and on dark ground: the cosine is the opacity, so that 0 is the ground itself."""


def match_matrix_panel(
    directions: Float[Tensor, "n_features d_in"],
    decoders: Mapping[str, Float[Tensor, "_ d_in"]],
    matchings: Mapping[str, Matching] | None = None,
) -> FigurePanel:
    """The figure with its words."""
    largest = max(len(directions), *(len(decoder) for decoder in decoders.values()))
    shown = "All latents and all features are shown."
    if largest > MOST_SHOWN:
        shown = (
            f"Where there are more than {MOST_SHOWN} latents or features (here up to {largest:,}), an evenly spaced "
            f"selection of them is shown, in this order."
        )
    return FigurePanel(
        title="Which latent found which feature",
        caption="Cosine of every latent with every true feature; latents stand in the order of the features they are "
        "matched to, what is left without a partner comes last. Good: one strong diagonal on a faint ground. "
        "Gaps in the diagonal are features not found, a second mark in a column is a duplicate, a second mark in a row "
        f"a latent that mixes features. {shown}",
        svg=match_matrix(directions, decoders, matchings),
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
    decoders: Mapping[str, Float[Tensor, "_ d_in"]],
    matchings: Mapping[str, Matching] | None = None,
) -> "matplotlib.figure.Figure":
    """One heat map per SAE (name -> decoder); a matching that is not given is computed as if all latents were alive."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    if not decoders:
        raise ValueError("match_matrix: no SAE given. Give {name: decoder directions}.")
    columns = columns_for(len(decoders))
    rows = -(-len(decoders) // columns)
    width = WIDE if columns > 1 else HALF
    figure = Figure(figsize=(width, rows * (width - 0.8) / columns + 0.35))
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axis in axes[len(decoders) :]:
        axis.remove()
    for axis, (name, decoder) in zip(axes, decoders.items(), strict=False):
        matching = (matchings or {}).get(name) or match_latents(directions, decoder)
        draw_matrix(axis, directions, decoder, matching)
        axis.set_title(short(name, 34))
        axis.set_xlabel("true feature")
    for axis in axes[: len(decoders) : columns]:
        axis.set_ylabel("latent, in the order of its feature")
    draw_colour_bar(figure.add_axes((1 - 0.5 / width, 0.2, 0.1 / width, 0.6)))
    space(figure, wspace=0.06, rect=(0.0, 0.0, 1 - 0.62 / width, 1.0))
    return figure


def draw_matrix(
    axis: "matplotlib.axes.Axes",
    directions: Float[Tensor, "n_features d_in"],
    decoder: Float[Tensor, "d_sae d_in"],
    matching: Matching,
) -> None:
    """One heat map."""
    all_features, all_latents = order_by_match(matching)
    step = max(1.0, len(all_features) / MOST_SHOWN, len(all_latents) / MOST_SHOWN)  # one for both keeps the diagonal
    features, latents = evenly(all_features, step), evenly(all_latents, step)
    shown_latents, shown_features = decoder.detach().cpu()[latents], directions.detach().cpu()[features]
    cosines = unit_rows(shown_latents) @ unit_rows(shown_features).T
    size = len(latents), len(features)
    pixels = diverging_pixels(cosines.numpy()).repeat(enlargement(size[0]), 0).repeat(enlargement(size[1]), 1)
    axis.imshow(pixels, interpolation="none", aspect="auto", extent=(0, size[1], size[0], 0))
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(True)
    for ticks, shown, total in ((axis.xaxis, size[1], len(all_features)), (axis.yaxis, size[0], len(all_latents))):
        ticks.set_ticks([0.5, shown - 0.5], ["1", f"{total:,}"])


def enlargement(n: int) -> int:
    """How often each entry is repeated, so that a small matrix has sharp edges on a large screen."""
    return max(1, 2 * MOST_SHOWN // n)


def draw_colour_bar(axis: "matplotlib.axes.Axes") -> None:
    """The colours from -1 to 1."""
    scale = np.linspace(1, -1, 2 * LEVELS + 1)[:, None]
    axis.set_in_layout(False)
    axis.imshow(diverging_pixels(scale), interpolation="none", aspect="auto", extent=(0, 1, -1, 1))
    axis.set_xticks([])
    axis.set_yticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
    axis.yaxis.tick_right()
    axis.grid(visible=False)
    axis.set_title("cosine", fontsize=8, weight="normal", color=SENTINEL["muted"])


def diverging_pixels(values: Float[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "rows columns 4"]:
    """RGBA: blue above 0, orange below, opacity |value| in `LEVELS` steps."""
    opacity = np.round(np.abs(values).clip(0, 1) * LEVELS) / LEVELS
    colour = np.where(values[..., None] >= 0, np.array(POSITIVE), np.array(NEGATIVE))
    pixels: np.ndarray = np.concatenate([colour * (opacity[..., None] > 0), 255 * opacity[..., None]], axis=-1)
    return pixels.round().astype(np.uint8)
