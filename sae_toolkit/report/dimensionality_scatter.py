"""The share of a dimension that each feature has, against sparsity: it clusters where polytopes are.

After Elhage et al. 2022 (arXiv 2209.10652), "The Geometry of Superposition".
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.metrics.polytopes import POLYTOPES
from sae_toolkit.report.line_chart import Line, Reference, draw_reference, line_chart_panel, plain_numbers
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import series
from sae_toolkit.report.svg import WIDE, drawn_as_svg

if TYPE_CHECKING:
    import matplotlib.figure

BIN = 0.01
LARGEST_DOT = 240.0
"""Square points of a dot that stands for all features of its model."""
SMALLEST_DOT = 4.0
APART = {"pentagon": 2.0, "square antiprism": -2.5}
"""Points by which labels of neighbours are moved apart."""


def dimensionality_scatter_panel(dimensionalities: Mapping[int | float, Float[Tensor, " n_features"]]) -> FigurePanel:
    """The figure with its words; `dimensionalities`: p (probability that a feature is active) -> D_i."""
    return FigurePanel(
        title="Dimensionality of each feature",
        caption="Per model the features' shares of a dimension; a dot's area is the number of features there. "
        "Dotted lines are the shares of the polytopes, and features that stand on a line form that shape: a large dot "
        "at 1/2 is a model made of opposite pairs, and the plateau there is where antipodal pairs are the best over a "
        "range of sparsities. Dots at 0 are features not learned; shares sum to the number of hidden dimensions.",
        svg=dimensionality_scatter(dimensionalities),
    )


def dimensions_per_feature_panel(
    name: str,
    p: Sequence[int | float],
    dimensions: Float[Tensor, " n_models"],
    best_pair: Float[Tensor, " n_models"],
) -> FigurePanel:
    """D* of models against 1/p; `best_pair` is that of the best model of two features in one dimension."""
    rarity = [1 / chance for chance in p]
    return line_chart_panel(
        "Dimensions per feature",
        "D*, hidden dimensions over the squared norm of W, about the share of a dimension that each represented "
        "feature gets. At 1 nothing is shared. The plateau at 1/2 is where the features pair up as digons: there the "
        "model follows the dashed line, one dimension that has to serve two features, as well as it can be done. "
        "Further to the right features are sparse enough to share still more, and the two part.",
        [Line(name=name, x=rarity, y=dimensions.tolist())],
        theory=[Line(name="best pair in 1 dimension", x=rarity, y=best_pair.tolist())],
        references=[Reference(label="1/2", y=0.5)],
        x_label="1/p: one in so many samples has a given feature",
        y_label="D*",
        log_x=True,
    )


@drawn_as_svg
def dimensionality_scatter(
    dimensionalities: Mapping[int | float, Float[Tensor, " n_features"]],
) -> "matplotlib.figure.Figure":
    """One column of dots per model."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    if not dimensionalities:
        raise ValueError("dimensionality_scatter: no model given. Give {p: D}.")
    figure = Figure(figsize=(WIDE, 4.0))
    axis = figure.subplots()
    chances = sorted(dimensionalities, reverse=True)
    for p in chances:
        values = dimensionalities[p].detach().cpu().double().numpy()
        levels, counts = np.unique(np.round(values / BIN), return_counts=True)
        areas = (LARGEST_DOT * counts / len(values)).clip(SMALLEST_DOT)
        axis.scatter(np.full(len(levels), 1 / p), levels * BIN, s=areas, color=series(0), alpha=0.6, linewidths=0)
    axis.set_xscale("log")
    axis.set_ylim(-0.03, 1.06)
    plain_numbers(axis, log_x=True, log_y=False)
    axis.grid(axis="y", visible=False)
    for polytope in POLYTOPES:
        label = Reference(label=polytope.name, y=polytope.dimensionality)
        draw_reference(axis, label, shift=APART.get(polytope.name, 0.0))
    axis.set_xlabel("1/p: one in so many samples has a given feature")
    axis.set_ylabel("dimensionality of a feature")
    return figure
