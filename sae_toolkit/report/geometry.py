"""How true and learned directions lie: as arrows where the space has two or three dimensions, else by their angles."""

from collections.abc import Mapping
from math import log10, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.ground_truth.directions import welch_bound
from sae_toolkit.metrics.matching import unit_rows
from sae_toolkit.report.numbers import power_of_ten
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, line_style, series
from sae_toolkit.report.svg import HALF, WIDE, drawn_as_svg, short

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

MOST_ROWS = 2048
"""Directions whose pairs are counted, evenly spaced where there are more (2 million pairs)."""
BIN = 0.02
EDGES = np.linspace(-1, 1, round(2 / BIN) + 1)
VISIBLE_DIMENSIONS = 3


def geometry_panel(
    directions: Float[Tensor, "n_features d_in"], decoders: Mapping[str, Float[Tensor, "_ _"]]
) -> FigurePanel:
    """The figure with its words."""
    if directions.shape[1] <= VISIBLE_DIMENSIONS:
        title, caption = (
            "True and learned directions",
            (
                "Thick grey lines are the true directions, coloured arrows the latents' decoder directions. "
                "Good: one arrow on each grey line. A bare grey line is a feature not found, an arrow between two "
                "lines blends them, two arrows on a line are duplicates."
            ),
        )
    else:
        title, caption = (
            "Angles within each dictionary",
            (
                "Cosines of all pairs of directions, on a logarithmic axis. Grey area: the true directions; "
                "thin line: random directions; dotted: the Welch bound, the smallest possible largest |cosine|. "
                "Good: the learned curve lies on the grey area. Pairs near 1 are duplicates, a broader curve "
                "means that latents share directions more than the features do."
            ),
        )
    return FigurePanel(title=title, caption=caption, svg=dictionary_geometry(directions, decoders))


@drawn_as_svg
def dictionary_geometry(
    directions: Float[Tensor, "n_features d_in"], decoders: Mapping[str, Float[Tensor, "_ _"]]
) -> "matplotlib.figure.Figure":
    """`decoders`: name -> decoder directions (alive latents, if the dead ones are to stay out)."""
    for name, decoder in decoders.items():
        if decoder.shape[1] != directions.shape[1]:
            raise ValueError(
                f"dictionary_geometry: {name} has {decoder.shape[1]} dimensions, the true directions have "
                f"{directions.shape[1]}. Compare dictionaries of one space."
            )
    drawing = arrows if directions.shape[1] <= VISIBLE_DIMENSIONS else pairwise_cosines
    return drawing(nonzero_units(directions), {name: nonzero_units(W) for name, W in decoders.items()})


def nonzero_units(rows: Float[Tensor, "n d_in"]) -> Float[np.ndarray, "_ d_in"]:
    """Directions of length 1; rows of length 0 have none."""
    return unit_rows(rows[(rows != 0).any(dim=1)]).numpy()


def arrows(
    directions: Float[np.ndarray, "n_features d_in"], decoders: Mapping[str, Float[np.ndarray, "_ d_in"]]
) -> "matplotlib.figure.Figure":
    """One plot per SAE, in two or three dimensions (one dimension is drawn as two)."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    solid = directions.shape[1] == 3
    columns = min(3, len(decoders))
    rows = -(-len(decoders) // columns)
    figure = Figure(figsize=(WIDE if columns > 1 else HALF, rows * (WIDE / columns if columns > 1 else HALF) * 0.95))
    for i, (name, decoder) in enumerate(decoders.items()):
        axis = figure.add_subplot(rows, columns, i + 1, projection="3d" if solid else None)
        for direction in directions:
            axis.plot(*from_origin(direction), color=SENTINEL["floor"], alpha=0.55, linewidth=5, solid_capstyle="round")
        for direction in decoder:
            draw_arrow(axis, direction, series(i), solid=solid)
        axis.set_title(short(name, 40))
        limits = (-1.1, 1.1)
        axis.set(xlim=limits, ylim=limits, **({"zlim": limits} if solid else {}))
        axis.set_aspect("equal")
        if solid:
            tidy_cube(axis)
        axis.set_xticks([-1, 0, 1])
        axis.set_yticks([-1, 0, 1])
    return figure


def tidy_cube(axis: Any) -> None:
    """A cube of grid lines that fills its plot, its walls transparent in both themes."""
    axis.set_box_aspect((1, 1, 1), zoom=1.15)
    axis.set_zticks([-1, 0, 1])
    for side in (axis.xaxis, axis.yaxis, axis.zaxis):
        side.set_pane_color((0, 0, 0, 0))


def from_origin(direction: Float[np.ndarray, " d_in"]) -> list[list[float]]:
    """Coordinates of the line from 0 to a direction, at least two of them."""
    ends = [*direction.tolist(), 0.0] if len(direction) == 1 else direction.tolist()
    return [[0.0, end] for end in ends]


def draw_arrow(axis: Any, direction: Float[np.ndarray, " d_in"], colour: str, *, solid: bool) -> None:
    """A thin arrow of length 1."""
    ends = [line[1] for line in from_origin(direction)]
    if solid:
        axis.quiver(0, 0, 0, *ends, color=colour, linewidth=1.4, arrow_length_ratio=0.12)
    else:
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", xy=ends, xytext=(0, 0), arrowprops=style)


def pairwise_cosines(
    directions: Float[np.ndarray, "n_features d_in"], decoders: Mapping[str, Float[np.ndarray, "_ d_in"]]
) -> "matplotlib.figure.Figure":
    """Histograms of the cosines of all pairs, all dictionaries on one axis."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    n, d = directions.shape
    figure = Figure(figsize=(WIDE, 3.0))
    axis = figure.subplots()
    axis.stairs(pair_shares(directions), EDGES, fill=True, color=SENTINEL["floor"], alpha=0.35, label="true directions")
    for i, (name, decoder) in enumerate(decoders.items()):
        shares = pair_shares(decoder)
        axis.stairs(shares, EDGES, color=series(i), linestyle=line_style(i), linewidth=1.6, label=short(name, 30))
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    chance = (1 - centres**2) ** ((d - 3) / 2)  # density of one coordinate of a random unit vector
    axis.plot(centres, chance / chance.sum(), color=SENTINEL["ink"], linewidth=0.9, label="random directions")
    bound = welch_bound(n, d)
    for x in (-bound, bound):
        axis.axvline(x, color=SENTINEL["muted"], linestyle=":", linewidth=1)
    axis.plot([], [], color=SENTINEL["muted"], linestyle=":", linewidth=1, label=f"± Welch bound {bound:.3f}")
    smallest = 1 / max(1, min(n, MOST_ROWS) * (min(n, MOST_ROWS) - 1) / 2)
    axis.set_yscale("log")
    axis.set_ylim(smallest / 2, 1)
    widest = max(0.5, 5 / sqrt(d))
    extreme = [widest, *(float(np.abs(EDGES[:-1][pair_shares(W) > 0]).max(initial=0)) for W in decoders.values())]
    axis.set_xlim(-min(1, max(extreme) + BIN), min(1, max(extreme) + BIN))
    axis.set_xlabel("cosine of two directions of the same dictionary")
    axis.set_ylabel("share of pairs")
    axis.yaxis.set_major_formatter(lambda value, _: power_of_ten(round(log10(value))))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def pair_shares(rows: Float[np.ndarray, "_ d_in"]) -> Float[np.ndarray, " n_bins"]:
    """Share of the pairs of different rows in each bin of `EDGES`."""
    if len(rows) > MOST_ROWS:
        rows = rows[torch.linspace(0, len(rows) - 1, MOST_ROWS).long().numpy()]
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), k=1)]
    counts, _ = np.histogram(cosines.clip(-1, 1), bins=EDGES)
    return counts / max(len(cosines), 1)
