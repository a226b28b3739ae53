"""Curves with bands against one quantity, and the lines that theory draws across them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from sae_toolkit.metrics.score import Score
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, line_style, series
from sae_toolkit.report.svg import WIDE, drawn_as_svg, short

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

Number = int | float
HEIGHT = 3.4
MANY_POINTS = 40
"""Above this a curve has no dots."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One measured curve; values that are not finite are gaps."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    """Lower edge of a band around the curve."""
    high: Sequence[Number] | None = None
    """Its upper edge; both edges or neither."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.x, self.y, self.low, self.high) if values is not None}
        if len(lengths) > 1:
            raise ValueError(f"Line {self.name}: x, y, low and high have {sorted(lengths)} points. Give equally many.")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"Line {self.name}: a band needs both low and high.")


def line_of_scores(name: str, x: Sequence[Number], scores: Sequence[Score]) -> Line:
    """Their values, with their intervals as band; one without an interval is drawn as a point."""
    return Line(
        name=name,
        x=x,
        y=[score.value for score in scores],
        low=[score.value if score.low is None else score.low for score in scores],
        high=[score.value if score.high is None else score.high for score in scores],
    )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A value that theory or convention names: a level of y, or a place on x."""

    label: str
    y: Number | None = None
    x: Number | None = None

    def __post_init__(self) -> None:
        if (self.y is None) == (self.x is None):
            raise ValueError(f"Reference {self.label}: give y for a level or x for a place, not both.")


def line_chart_panel(
    title: str,
    caption: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    references: Sequence[Reference] = (),
    theory: Sequence[Line] = (),
    log_x: bool = False,
    log_y: bool = False,
) -> FigurePanel:
    """The figure with the words it is given."""
    svg = line_chart(
        lines, x_label=x_label, y_label=y_label, references=references, theory=theory, log_x=log_x, log_y=log_y
    )
    return FigurePanel(title=title, caption=caption, svg=svg)


@drawn_as_svg
def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    references: Sequence[Reference] = (),
    theory: Sequence[Line] = (),
    log_x: bool = False,
    log_y: bool = False,
) -> "matplotlib.figure.Figure":
    """Measured curves in colour with their bands, `theory` as thin dark curves, `references` as dotted lines."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    if not lines:
        raise ValueError("line_chart: no line given. Give at least one Line.")
    figure = Figure(figsize=(WIDE, HEIGHT))
    axis = figure.subplots()
    for i, line in enumerate(lines):
        draw_line(axis, line, i)
    for i, line in enumerate(theory):
        axis.plot(
            line.x, line.y, color=SENTINEL["ink"], linestyle=("--", "-.", ":")[i % 3], linewidth=1.1, label=line.name
        )
    if log_x:
        axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log")
    elif min(y for line in [*lines, *theory] for y in line.y if isfinite(y)) >= 0:
        axis.set_ylim(bottom=0)
    plain_numbers(axis, log_x=log_x, log_y=log_y)
    for reference in references:
        draw_reference(axis, reference)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    if len(lines) + len(theory) > 1:
        axis.legend(loc="upper left", bbox_to_anchor=(1.02 + 0.09 * any(r.y is not None for r in references), 1))
    return figure


def draw_line(axis: "matplotlib.axes.Axes", line: Line, index: int) -> None:
    """One curve over its band."""
    colour = series(index)
    if line.low is not None and line.high is not None:
        axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    axis.plot(
        line.x,
        line.y,
        color=colour,
        linestyle=line_style(index),
        marker="o" if len(line.x) <= MANY_POINTS else None,
        markersize=3,
        label=short(line.name, 34),
    )


def draw_reference(axis: "matplotlib.axes.Axes", reference: Reference, *, shift: float = 0.0) -> None:
    """A dotted line with its label at the right or the upper end; `shift` moves the label, in points."""
    style: dict[str, Any] = {"color": SENTINEL["muted"], "linewidth": 0.9, "linestyle": ":", "zorder": 1.5}
    words: dict[str, Any] = {
        "textcoords": "offset points",
        "fontsize": 7.5,
        "color": SENTINEL["muted"],
        "annotation_clip": False,
    }
    if reference.y is not None:
        axis.axhline(reference.y, **style)
        words |= {"xycoords": ("axes fraction", "data"), "va": "center", "ha": "left"}
        axis.annotate(reference.label, (1.0, reference.y), xytext=(4, shift), **words)
    if reference.x is not None:
        axis.axvline(reference.x, **style)
        words |= {"xycoords": ("data", "axes fraction"), "va": "bottom", "ha": "center"}
        axis.annotate(reference.label, (reference.x, 1.0), xytext=(shift, 3), **words)


def plain_numbers(axis: "matplotlib.axes.Axes", *, log_x: bool, log_y: bool) -> None:
    """0.01, 0.1, 1 and 1, 2, 5, 10 in place of powers where a logarithmic axis is short."""
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415  (slow import)

    for ticks, is_log in ((axis.xaxis, log_x), (axis.yaxis, log_y)):
        if is_log:
            low, high = ticks.get_view_interval()
            ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
            ticks.set_minor_formatter(NullFormatter())
            ticks.set_major_formatter(lambda value, _: f"{value:g}")
