"""Training curves from the log records of `train`: loss, L0, dead latents, and what a probe measured on the way."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sae_toolkit.report.headlines import label
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, line_style, series
from sae_toolkit.report.svg import WIDE, drawn_as_svg, short

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

LogRecord = Mapping[str, Any]
Points = tuple[list[float], list[float]]
ALWAYS_SHOWN = ("loss", "l0", "dead")
LABELS = {"loss": "Training loss (log scale)", "l0": "L0 in training", "dead": "Share of dead latents"}
COLUMNS = 3


def training_curves_panel(history: Sequence[LogRecord], *, quantities: Sequence[str] | None = None) -> FigurePanel:
    """The figure with its words."""
    return FigurePanel(
        title="Training",
        caption="Against the number of samples seen. Good: the loss falls and levels off, L0 settles on its target, "
        "dead latents stay few, and the numbers measured on the way rise to a plateau. A curve that still climbs at "
        "the right end wants more samples; a jump in dead latents early on wants a longer warm-up or a smaller "
        "learning rate.",
        svg=training_curves(history, quantities=quantities),
    )


@drawn_as_svg
def training_curves(
    history: Sequence[LogRecord], *, quantities: Sequence[str] | None = None
) -> "matplotlib.figure.Figure":
    """One plot per quantity, one line per SAE; without `quantities`: loss, L0, dead and everything the probe gave."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    names = list(dict.fromkeys(name for record in history for name in record["saes"]))
    if quantities is None:
        quantities = [*ALWAYS_SHOWN, *probe_quantities(history)]
    drawn = {q: {name: points(history, q, name) for name in names} for q in quantities}
    drawn = {q: lines for q, lines in drawn.items() if any(xs for xs, _ in lines.values())}
    if not drawn:
        raise ValueError(f"training_curves: none of {list(quantities)} is in any of {len(history)} log records.")
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(WIDE, 2.15 * rows + 0.3 * (-(-len(names) // 5))))
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axis in axes[len(drawn) :]:
        axis.remove()
    for axis, (quantity, lines) in zip(axes, drawn.items(), strict=False):
        draw_quantity(axis, quantity, lines)
    handles, _ = axes[0].get_legend_handles_labels()
    figure.legend(handles, [short(name, 30) for name in names], loc="outside upper left", ncols=min(5, len(names)))
    return figure


def probe_quantities(history: Sequence[LogRecord]) -> list[str]:
    """What a probe measured, in the order of first appearance."""
    return list(dict.fromkeys(q for r in history for numbers in r.get("probe", {}).values() for q in numbers))


def points(history: Sequence[LogRecord], quantity: str, name: str) -> Points:
    """Samples and values of one SAE's quantity, where a record has it."""
    samples: list[float] = []
    values: list[float] = []
    for record in history:
        value = {**record["saes"].get(name, {}), **record.get("probe", {}).get(name, {})}.get(quantity)
        if value is not None:
            samples.append(float(record["samples"]))
            values.append(float(value))
    return samples, values


def draw_quantity(axis: "matplotlib.axes.Axes", quantity: str, lines: Mapping[str, Points]) -> None:
    """One plot."""
    for i, (name, (samples, values)) in enumerate(lines.items()):
        few = len(samples) <= 24
        axis.plot(
            samples,
            values,
            color=series(i),
            linestyle=line_style(i),
            marker="o" if few else None,
            markersize=2.5,
            label=short(name, 30),
        )
    lowest = min(value for _, values in lines.values() for value in values)
    if quantity == "loss" and lowest > 0:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axis.yaxis.set_minor_formatter(lambda value, _: "")
        axis.grid(which="minor", axis="y", linewidth=0.3)
    elif lowest >= 0:
        axis.set_ylim(bottom=0)
    axis.set_title(LABELS.get(quantity, label(quantity)), color=SENTINEL["ink"])
    axis.set_xlim(left=0)
    axis.set_xlabel("samples")
    axis.locator_params(axis="x", nbins=5)
    axis.xaxis.set_major_formatter(lambda value, _: thousands(value))


def thousands(value: float) -> str:
    """250k, 2M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
