"""How often each latent fires, on a logarithmic axis, with a place of its own for latents that never do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.metrics.density_histogram import density_histogram
from sae_toolkit.metrics.sparsity import DENSE_RATE
from sae_toolkit.report.numbers import power_of_ten
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, series
from sae_toolkit.report.svg import drawn_as_svg, short, small_multiples

if TYPE_CHECKING:
    import matplotlib.figure


def density_panel(firing_rates: Mapping[str, Float[Tensor, " d_sae"]], *, n_samples: int) -> FigurePanel:
    """The figure with its words."""
    return FigurePanel(
        title="How often latents fire",
        caption=f"Share of {n_samples:,} held-out samples in which each latent fires. The hatched bar on the left "
        "counts dead latents, which never fired; right of the dotted line are dense ones, which fire in more than 10 % "
        "of samples. Good: one hill shaped like the true firing rates, no hatched bar, nothing dense. "
        "A tall hatched bar is wasted width; a hill at the right end is a latent used as an offset.",
        svg=density(firing_rates, n_samples=n_samples),
    )


@drawn_as_svg
def density(firing_rates: Mapping[str, Float[Tensor, " d_sae"]], *, n_samples: int) -> "matplotlib.figure.Figure":
    """One plot per SAE (name -> share of the `n_samples` in which each latent fired) on common axes."""
    if not firing_rates:
        raise ValueError("density: no SAE given. Give {name: firing rate per latent}.")
    first = min(density_histogram(rates).edges[0] for rates in firing_rates.values())
    figure, axes = small_multiples(len(firing_rates), height=1.9)
    for i, ((name, rates), axis) in enumerate(zip(firing_rates.items(), axes, strict=True)):
        edges, counts, n_dead = density_histogram(rates, lowest=int(first))
        axis.stairs(counts, edges, fill=True, color=series(i), alpha=0.85)
        axis.bar(first - 0.7, n_dead, width=0.5, facecolor="none", edgecolor=series(i), hatch="////", linewidth=1)
        axis.annotate(
            f"{n_dead:,}",
            (first - 0.7, n_dead),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=SENTINEL["muted"],
        )
        axis.axvline(np.log10(DENSE_RATE), color=SENTINEL["muted"], linewidth=1, linestyle=":")
        axis.set_title(short(name, 40))
        powers = np.arange(first, 1)
        axis.set_xticks([first - 0.7, *powers], ["dead", *(power_of_ten(int(p)) for p in powers)])
        axis.set_xlabel("share of samples in which a latent fires")
        axis.set_ylabel("latents")
        axis.label_outer(remove_inner_ticks=False)
        axis.tick_params(labelbottom=True)
    return figure
