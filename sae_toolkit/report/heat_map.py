"""Small signed tables as heat maps: circuits, bigrams, composition of heads."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.report.match_matrix import MOST_SHOWN, diverging_pixels, enlargement
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.svg import HALF, WIDE, columns_for, drawn_as_svg, short, space

if TYPE_CHECKING:
    import matplotlib.figure


def heat_map_panel(
    title: str, caption: str, tables: Mapping[str, Float[Tensor, "_ _"]], *, row_label: str, column_label: str
) -> FigurePanel:
    """The figure with the words it is given, and those on its colours."""
    colours = "Blue is above 0, orange below, each table on its own scale; the largest magnitude is in its heading."
    svg = heat_map(tables, row_label=row_label, column_label=column_label)
    return FigurePanel(title=title, caption=f"{caption} {colours}", svg=svg)


@drawn_as_svg
def heat_map(
    tables: Mapping[str, Float[Tensor, "_ _"]], *, row_label: str, column_label: str
) -> "matplotlib.figure.Figure":
    """One heat map per table; entries that are not finite stay empty."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    largest_side = max((max(table.shape) for table in tables.values()), default=0)
    if not tables or not 1 <= largest_side <= MOST_SHOWN:
        raise ValueError(
            f"heat_map: {len(tables)} tables of up to {largest_side} rows or columns given. Give at least one, none "
            f"empty or larger than {MOST_SHOWN}; select rows and columns before."
        )
    columns = columns_for(len(tables))
    rows = -(-len(tables) // columns)
    width = WIDE if columns > 1 else HALF
    figure = Figure(figsize=(width, rows * (width - 0.4) / columns + 0.35))
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axis in axes[len(tables) :]:
        axis.remove()
    for axis, (name, table) in zip(axes, tables.items(), strict=False):
        values = table.detach().cpu().double().numpy()
        largest = float(np.nanmax(np.abs(values), initial=0.0)) if np.isfinite(values).any() else 0.0
        scaled = np.nan_to_num(values / largest if largest > 0 else np.zeros_like(values))
        pixels = diverging_pixels(scaled).repeat(enlargement(len(values)), 0).repeat(enlargement(values.shape[1]), 1)
        axis.imshow(
            pixels, interpolation="none", aspect="auto", extent=(0.5, values.shape[1] + 0.5, len(values) + 0.5, 0.5)
        )
        axis.grid(visible=False)
        axis.set_title(f"{short(name, 30)} ({largest:.3g})")
        axis.set_xlabel(column_label)
        axis.set_ylabel(row_label)
    space(figure, wspace=0.06)
    return figure
