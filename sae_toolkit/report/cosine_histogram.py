"""How close the best latent comes to each true feature, and how close chance would come."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, series
from sae_toolkit.report.svg import drawn_as_svg, short, small_multiples

if TYPE_CHECKING:
    import matplotlib.figure

FOUND = 0.9
BIN = 0.025


def cosine_histogram_panel(
    best_cosines: Mapping[str, Float[Tensor, " n_features"]], *, floor: Float[Tensor, " n"] | None = None
) -> FigurePanel:
    """The figure with its words."""
    chance = " The grey outline is what a random dictionary of equal width reaches." if floor is not None else ""
    return FigurePanel(
        title="How close the best latent comes to each true feature",
        caption=f"For every true feature, the largest cosine of any latent with it.{chance} Good: everything piles up "
        "at 1, to the right of the dotted line at 0.9. A second hill further left is a group of features that was "
        "missed or blended; a hill inside the grey outline is no better than chance.",
        svg=cosine_histogram(best_cosines, floor=floor),
    )


@drawn_as_svg
def cosine_histogram(
    best_cosines: Mapping[str, Float[Tensor, " n_features"]], *, floor: Float[Tensor, " n"] | None = None
) -> "matplotlib.figure.Figure":
    """One plot per SAE (name -> best cosine of each feature) on common axes; `floor` is drawn into each."""
    if not best_cosines:
        raise ValueError("cosine_histogram: no SAE given. Give {name: best cosine per feature}.")
    lowest = min([0.0] + [float(c.min()) for c in best_cosines.values() if len(c)])
    edges = np.arange(np.floor(lowest / BIN), 1 / BIN + 1) * BIN
    figure, axes = small_multiples(len(best_cosines), height=1.9)
    for i, ((name, cosines), axis) in enumerate(zip(best_cosines.items(), axes, strict=True)):
        if floor is not None:
            axis.stairs(shares(floor, edges), edges, color=SENTINEL["floor"], linewidth=1.4)
        axis.stairs(shares(cosines, edges), edges, fill=True, color=series(i), alpha=0.85)
        axis.axvline(FOUND, color=SENTINEL["muted"], linewidth=1, linestyle=":")
        axis.set_title(short(name, 40))
        below = int((cosines < FOUND - 1e-6).sum())
        axis.text(
            0.02,
            0.94,
            f"{below:,} of {len(cosines):,} features below {FOUND}",
            transform=axis.transAxes,
            va="top",
            color=SENTINEL["muted"],
        )
        axis.set_xlim(edges[0], 1.0)
        axis.set_xlabel("best cosine")
        axis.set_ylabel("share of features")
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axis.label_outer(remove_inner_ticks=False)
        axis.tick_params(labelbottom=True)
    return figure


def shares(values: Float[Tensor, " n"], edges: Float[np.ndarray, " n_edges"]) -> Float[np.ndarray, " n_bins"]:
    """Share of the values in each bin; rounding above 1 counts as 1."""
    counts, _ = np.histogram(values.detach().cpu().double().clamp_max(1).numpy(), bins=edges)
    return counts / max(len(values), 1)
