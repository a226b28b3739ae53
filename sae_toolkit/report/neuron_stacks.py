"""What each neuron works for: one bar per neuron, one piece per feature, several models side by side.

After the neuron weight plots of Elhage et al. 2022 (arXiv 2209.10652), "Computation in Superposition".
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import N_SERIES, SENTINEL, series
from sae_toolkit.report.svg import WIDE, drawn_as_svg, short, space

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

COLUMNS = 4
NAMED = N_SERIES - 1
"""The most important features, which have a colour of their own; all others share one."""
LEAST = 0.02
"""Smallest share of the highest bar that is drawn."""


def neuron_stacks_panel(contributions: Mapping[str, Float[Tensor, "n_hidden n_features"]]) -> FigurePanel:
    """The figure with its words; `contributions`: name -> how much feature i counts in neuron j, >= 0."""
    return FigurePanel(
        title="What each neuron works for",
        caption="One bar per neuron, highest first; each piece is one feature, and its height is how strongly the "
        "neuron reads the feature times how strongly the neuron is read. A bar of one piece is a monosemantic neuron; "
        "a bar of many pieces works for many features. The most important features have a colour of their own.",
        svg=neuron_stacks(contributions),
    )


@drawn_as_svg
def neuron_stacks(contributions: Mapping[str, Float[Tensor, "n_hidden n_features"]]) -> "matplotlib.figure.Figure":
    """One plot per model, each to its own scale."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    if not contributions:
        raise ValueError("neuron_stacks: no model given. Give {name: contributions}.")
    columns = min(COLUMNS, len(contributions))
    rows = -(-len(contributions) // columns)
    figure = Figure(figsize=(WIDE, 1.75 * rows + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[len(contributions) :]:
        unused.remove()
    for i, (axis, (name, values)) in enumerate(zip(axes, contributions.items(), strict=False)):
        draw_stacks(axis, values.detach().cpu().double())
        axis.set_title(short(name, 34))
        if i % columns == 0:
            axis.set_ylabel("contribution")
        if i >= len(contributions) - columns:
            axis.set_xlabel("neuron")
    draw_legend(figure, max(values.shape[1] for values in contributions.values()))
    space(figure, wspace=0.04, hspace=0.06)
    return figure


def draw_stacks(axis: "matplotlib.axes.Axes", contributions: Float64[Tensor, "n_hidden n_features"]) -> None:
    """Bars from the highest to the lowest, the largest piece of each at its bottom."""
    totals, order = contributions.sum(dim=1).sort(descending=True)
    least = LEAST * float(totals[0])
    for place, neuron in enumerate(order.tolist()):
        bottom = 0.0
        pieces, features = contributions[neuron].sort(descending=True)
        for height, feature in zip(pieces.tolist(), features.tolist(), strict=True):
            if height < least:
                break
            axis.bar(
                place + 1,
                height,
                bottom=bottom,
                width=0.8,
                color=colour_of(feature),
                edgecolor=SENTINEL["surface"],
                linewidth=0.6,
            )
            bottom += height
    axis.set_xlim(0.4, len(totals) + 0.6)
    axis.set_xticks([1, len(totals)] if len(totals) > 1 else [1])
    axis.grid(axis="x", visible=False)


def colour_of(feature: int) -> str:
    """Of a feature, 0 the most important one."""
    return series(feature) if feature < NAMED else SENTINEL["floor"]


def draw_legend(figure: "matplotlib.figure.Figure", n_features: int) -> None:
    """The features with colours of their own, and the rest."""
    from matplotlib.patches import Patch  # noqa: PLC0415  (slow import)

    names = [f"feature {i + 1}" for i in range(min(n_features, NAMED))]
    names += [f"features {NAMED + 1} to {n_features}"] if n_features > NAMED + 1 else []
    names += [f"feature {n_features}"] if n_features == NAMED + 1 else []
    handles = [Patch(facecolor=colour_of(i)) for i in range(len(names))]
    figure.legend(handles, names, loc="outside upper left", ncols=len(names))
