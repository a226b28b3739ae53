"""Sparsity against quality: what each dictionary pays in active latents for what it gives back or finds."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from sae_toolkit.report.expectation import ControlScore, NamedScore
from sae_toolkit.report.headlines import label
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, series
from sae_toolkit.report.svg import drawn_as_svg, short, small_multiples

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

QUALITIES = ("explained_variance", "ce_recovered_mean", "mean_matched_cosine", "recall_at_0.9")
LEAST_SHOWN = -0.1
CAPTION = (
    "Each coloured dot is one SAE: active latents per sample against a score of which more is better. The line joins "
    "those that no other SAE beats in both. Squares are opponents, small dots floors, diamonds ceilings; most of them "
    "have a stronger encoder than an SAE. Good: up and to the left of every opponent. Bad: below a square at the same "
    "L0. Where two panels rank the SAEs differently, more variance explained did not mean more features found."
)


class Point(NamedTuple):
    """One dictionary."""

    name: str
    l0: float
    quality: float
    role: str
    """"sae", "opponent", "floor" or "ceiling"."""


def pareto_panel(
    scores: Sequence[NamedScore], controls: Sequence[ControlScore] = (), *, names: Sequence[str] = QUALITIES
) -> FigurePanel | None:
    """The figure with its words; None where fewer than two SAEs have an L0 and one of the scores."""
    panels = {name: found for name in names if len(found := points_of(name, scores, controls)) > 0}
    panels = {name: found for name, found in panels.items() if sum(point.role == "sae" for point in found) > 1}
    if not panels:
        return None
    return FigurePanel(title="Sparsity against quality", caption=CAPTION, svg=pareto(panels))


def points_of(quality: str, scores: Sequence[NamedScore], controls: Sequence[ControlScore]) -> list[Point]:
    """Every dictionary that has an L0 above 0 and the score, SAEs first."""
    rows = [(score.sae, score.name, score.score.value, "sae") for score in scores]
    rows += [(control.sae, control.name, control.score.value, control.role) for control in controls]
    values = {(sae, name): value for sae, name, value, _ in rows}
    roles = {sae: role for sae, _, _, role in reversed(rows)}
    found = [
        Point(sae, values.get((sae, "l0"), float("nan")), values.get((sae, quality), float("nan")), roles[sae])
        for sae in dict.fromkeys(row[0] for row in rows)
    ]
    return [point for point in found if point.l0 > 0 and isfinite(point.quality)]


def unbeaten(points: Sequence[Point]) -> list[Point]:
    """Those than which no other has both a smaller or equal L0 and a higher or equal score, by increasing L0."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.l0, -p.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return kept


@drawn_as_svg
def pareto(panels: Mapping[str, Sequence[Point]]) -> "matplotlib.figure.Figure":
    """One plot per score."""
    figure, axes = small_multiples(len(panels), height=3.2)
    saes = list(dict.fromkeys(p.name for points in panels.values() for p in points if p.role == "sae"))
    for axis, (name, points) in zip(axes, panels.items(), strict=True):
        draw_points(axis, points, saes)
        axis.set_title(label(name))
        axis.set_xlabel("active latents per sample (L0)")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(saes) + 2), fontsize=8
    )
    return figure


def draw_points(axis: "matplotlib.axes.Axes", points: Sequence[Point], saes: Sequence[str]) -> None:
    """Controls in grey, SAEs in their colours, the unbeaten ones joined."""
    for role, marker, size in (("floor", "o", 14), ("opponent", "s", 20), ("ceiling", "D", 18)):
        rest = [p for p in points if p.role == role]
        if rest:
            shown = [max(p.quality, LEAST_SHOWN) for p in rest]
            axis.scatter([p.l0 for p in rest], shown, s=size, marker=marker, color=SENTINEL[role], label=f"{role}s")
    front = unbeaten([p for p in points if p.role == "sae"])
    axis.plot([p.l0 for p in front], [p.quality for p in front], color=SENTINEL["grid"], linewidth=1.2, zorder=1)
    for point in points:
        if point.role == "sae":
            colour = series(saes.index(point.name))
            axis.scatter(point.l0, max(point.quality, LEAST_SHOWN), s=42, color=colour, label=short(point.name, 28))
