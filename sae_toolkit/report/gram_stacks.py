"""W^T W and norms of several models side by side: superposition setting in as features grow sparse.

After the stacked diagrams of Elhage et al. 2022 (arXiv 2209.10652), "Demonstrating Superposition".
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.metrics.geometry import feature_interference, feature_norms, gram
from sae_toolkit.report.match_matrix import diverging_pixels, draw_colour_bar, enlargement
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL
from sae_toolkit.report.svg import WIDE, drawn_as_svg, short, space

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

COLUMNS = 5
BARS = 0.4
"""Width of the norms, in widths of their square."""
MARGIN = 0.95
"""Inches on the right for the two colour scales."""
STOPS = np.array([(24, 120, 184), (176, 80, 138), (222, 110, 20)])
"""Interference 0, 1 and 2: readable on light and on dark ground, and without colour vision."""
FULL = 2.0
"""Interference of this or more has the last colour: a digon has norm^2, the corner of a pentagon 1.5 norm^2."""


def gram_stacks_panel(models: Mapping[str, Float[Tensor, "_ _"]], *, columns: int = COLUMNS) -> FigurePanel:
    """The figure with its words; `models`: name (a sparsity, say) -> W [n_hidden n_features], `columns` to a row."""
    return FigurePanel(
        title="What each feature writes into each other",
        caption="Squares: WᵀW, features in order of importance, blue for positive and orange for negative entries. "
        "Bars: the norm of each feature's direction; the dotted line at 1/2 is where a feature counts as represented. "
        "Their colour is the interference: how strongly all other features are felt along this one. A blue "
        "diagonal that stops with blue bars is a model that keeps the most important features and drops the rest; "
        "marks off the diagonal and purple to orange bars are features in superposition.",
        svg=gram_stacks(models, columns=columns),
    )


@drawn_as_svg
def gram_stacks(models: Mapping[str, Float[Tensor, "_ _"]], *, columns: int = COLUMNS) -> "matplotlib.figure.Figure":
    """Per model a heat map of W^T W and, row by row beside it, the norms coloured by interference."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    if not models:
        raise ValueError("gram_stacks: no model given. Give {name: W}.")
    columns = min(columns, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(WIDE, rows * (0.66 * (WIDE - MARGIN) / max(columns, 2.5) + 0.45)))
    axes = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1, BARS] * columns).flatten().tolist()
    for unused in axes[2 * len(models) :]:
        unused.remove()
    widest = max([1.0, *(float(feature_norms(W).max()) for W in models.values())])
    for i, (name, W) in enumerate(models.items()):
        draw_gram(axes[2 * i], W)
        draw_norms(axes[2 * i + 1], W, 1.05 * widest)
        axes[2 * i].set_title(short(name, 30))
        axes[2 * i].tick_params(labelleft=i % columns == 0)
    draw_scales(figure)
    space(figure, wspace=0.03, hspace=0.05, rect=(0.0, 0.0, 1 - MARGIN / WIDE, 1.0))
    return figure


def draw_gram(axis: "matplotlib.axes.Axes", W: Float[Tensor, "n_hidden n_features"]) -> None:
    """W^T W as a square."""
    n = W.shape[1]
    axis.set_anchor("E")  # towards its bars
    pixels = diverging_pixels(gram(W).numpy()).repeat(enlargement(n), 0).repeat(enlargement(n), 1)
    axis.imshow(pixels, interpolation="none", extent=(0, n, n, 0))
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(True)
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_ticks([0.5, n - 0.5] if n > 1 else [0.5], ["1", str(n)] if n > 1 else ["1"])


def draw_norms(axis: "matplotlib.axes.Axes", W: Float[Tensor, "n_hidden n_features"], widest: float) -> None:
    """One bar per feature, on the rows of the square beside it."""
    norms, interference = feature_norms(W).numpy(), feature_interference(W).numpy()
    axis.barh(np.arange(len(norms)) + 0.5, norms, height=0.8, color=[interference_colour(x) for x in interference])
    axis.axvline(0.5, color=SENTINEL["muted"], linewidth=0.8, linestyle=":")
    axis.set_xlim(0, widest)
    axis.set_ylim(len(norms), 0)
    axis.set_box_aspect(1 / BARS)  # as high as the square
    axis.set_anchor("W")
    axis.set_xticks([0, 1], ["0", "1"])
    axis.set_yticks([])
    axis.grid(visible=False)


def interference_colour(value: float) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1."""
    places = np.linspace(0, FULL, len(STOPS))
    red, green, blue = (float(np.interp(value, places, STOPS[:, channel])) / 255 for channel in range(3))
    return red, green, blue


def draw_scales(figure: "matplotlib.figure.Figure") -> None:
    """Colours of W^T W above, colours of the interference below, in the right margin."""
    left, width = 1 - 0.75 / WIDE, 0.1 / WIDE
    entries = figure.add_axes((left, 0.6, width, 0.27))
    draw_colour_bar(entries)
    entries.set_title("WᵀW", fontsize=8, weight="normal", color=SENTINEL["muted"], loc="left")
    entries.set_title("", loc="center")
    entries.set_yticks([-1, 0, 1], ["−1", "0", "1"])
    scale = figure.add_axes((left, 0.13, width, 0.27))
    scale.set_in_layout(False)
    edges = np.linspace(FULL, 0, 41)  # bars and no image, whose colours the dark theme would change
    colours = [interference_colour(x) for x in edges]
    scale.bar(0.5, edges, width=1, color=colours)  # the shorter ones cover the longer ones: no seams
    scale.set(xlim=(0, 1), ylim=(0, FULL))
    scale.set_xticks([])
    scale.set_yticks([0, 1, 2], ["0", "1", "≥ 2"])
    scale.yaxis.tick_right()
    scale.grid(visible=False)
    scale.set_title("interference", fontsize=8, weight="normal", color=SENTINEL["muted"], loc="left")
