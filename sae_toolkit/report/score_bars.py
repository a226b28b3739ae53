"""Headline scores between what chance and what perfect knowledge score, with the controls below on the same scale."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from sae_toolkit.report.expectation import ControlScore, NamedScore
from sae_toolkit.report.headlines import label
from sae_toolkit.report.numbers import readable
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, series
from sae_toolkit.report.svg import WIDE, drawn_as_svg, short

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

BETWEEN_CHANCE_AND_PERFECTION = ("mean_matched_cosine", "recall_at_0.9", "explained_variance", "ce_recovered_mean")
LEAST_SHOWN = -0.1
"""Controls can reach an explained variance of -10: what lies further left sits on the edge as a triangle."""
GROUPS = (("", "SAEs"), ("ceiling", "Ceilings"), ("opponent", "Opponents"), ("floor", "Floors"))
MARKERS = {"ceiling": "D", "opponent": "s", "floor": "o"}


class Row(NamedTuple):
    """One dictionary on the vertical axis; a heading has no role."""

    y: float
    text: str
    role: str | None


def score_bars_panel(
    scores: Sequence[NamedScore],
    controls: Sequence[ControlScore] = (),
    *,
    names: Sequence[str] = BETWEEN_CHANCE_AND_PERFECTION,
) -> FigurePanel:
    """The figure with its words."""
    return FigurePanel(
        title="Scores between chance and perfect knowledge",
        caption="Each dot is one dictionary; its whisker is the 95 % interval. The band behind an SAE runs from its "
        "floor (what chance scores) to its ceiling (what perfect knowledge scores). Good: a dot near the right end of "
        "its band and clear of every opponent. Bad: a dot that a floor or an opponent reaches, however large it is. "
        "A triangle at the left edge stands for a value too low for the axis.",
        svg=score_bars(scores, controls, names=names),
    )


@drawn_as_svg
def score_bars(
    scores: Sequence[NamedScore],
    controls: Sequence[ControlScore] = (),
    *,
    names: Sequence[str] = BETWEEN_CHANCE_AND_PERFECTION,
) -> "matplotlib.figure.Figure":
    """One plot per score name that was measured; rows are the SAEs, then ceilings, opponents and floors."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    shown = [name for name in names if any(score.name == name for score in scores)]
    if not shown:
        raise ValueError(f"score_bars: {list(names)} asked, but only {sorted({s.name for s in scores})} were measured.")
    rows = rows_of([s for s in scores if s.name in shown], [c for c in controls if c.name in shown])
    height = rows[-1].y + 1
    figure = Figure(figsize=(WIDE, 0.75 + 0.235 * height))
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    measured: list[NamedScore | ControlScore] = [*scores, *controls]
    for name, axis in zip(shown, axes, strict=True):
        draw_score(axis, rows, [s for s in measured if s.name == name])
        axis.set_title(label(name))
        axis.set_ylim(height - 0.4, -0.6)
        axis.tick_params(axis="y", length=0, labelcolor=SENTINEL["ink"])
    dictionaries = [row for row in rows if row.role is not None]
    axes[0].set_yticks([row.y for row in dictionaries], [short(row.text, 38) for row in dictionaries])
    for row in rows:
        if row.role is None:
            axes[0].annotate(
                row.text,
                (0, row.y),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                weight="bold",
                color=SENTINEL["muted"],
            )
    return figure


def rows_of(scores: Sequence[NamedScore], controls: Sequence[ControlScore]) -> list[Row]:
    """Headings and dictionaries from top to bottom; within a group of controls the best known score first."""
    rows: list[Row] = []
    for role, heading in GROUPS:
        members: dict[str, float] = {}
        for score in scores if role == "" else [c for c in controls if c.role == role]:
            value = score.score.value if isfinite(score.score.value) else float("-inf")
            members.setdefault(score.sae, 0.0 if role == "" else -value)
        if members:
            rows.append(Row(rows[-1].y + 1.3 if rows else 0, heading, None))
            rows += [Row(rows[-1].y + 1 + i, n, role) for i, n in enumerate(sorted(members, key=lambda n: members[n]))]
    return rows


def draw_score(
    axis: "matplotlib.axes.Axes", rows: Sequence[Row], measured: Sequence[NamedScore | ControlScore]
) -> None:
    """All dictionaries' values of one score on one axis."""
    by_sae = {score.sae: score for score in measured}
    values = [s.score.value for s in measured if isfinite(s.score.value)]
    right = max([1.0, *values])
    left = max(min([0.0, *values]), LEAST_SHOWN)
    axis.set_xlim(left - 0.02 * (right - left), right * 1.2)
    axis.set_xticks([tick * right for tick in (0, 0.25, 0.5, 0.75, 1)]) if right == 1 else None
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    colours = iter(range(len(rows)))
    for row in rows:
        if row.role is None:
            continue
        colour = series(next(colours)) if row.role == "" else SENTINEL[row.role]
        if row.text in by_sae:
            draw_dictionary(axis, row, by_sae[row.text], colour, left)


def draw_dictionary(
    axis: "matplotlib.axes.Axes", row: Row, named: NamedScore | ControlScore, colour: str, left: float
) -> None:
    """Band from floor to ceiling, whisker, dot and the number in digits."""
    score = named.score
    ceiling = score.ceiling if row.role == "" and score.ceiling is not None and isfinite(score.ceiling) else None
    if ceiling is not None and score.floor is not None and isfinite(score.floor):
        start = max(score.floor, left)
        width = max(ceiling - start, 0)
        axis.barh(row.y, width, left=start, height=0.56, color=colour, alpha=0.16, linewidth=0)
    if not isfinite(score.value):
        axis.text(left, row.y, "no value", va="center", color=SENTINEL["muted"], fontsize=7.5)
        return
    beyond = score.value < left
    x = left if beyond else score.value
    if score.low is not None and score.high is not None and not beyond:
        axis.plot(
            [max(score.low, left), score.high], [row.y, row.y], color=colour, linewidth=1.8, solid_capstyle="butt"
        )
    filled = row.role == "" or beyond
    axis.plot(
        [x],
        [row.y],
        marker="<" if beyond else MARKERS.get(row.role or "", "o"),
        markersize=6.5 if row.role == "" else 5,
        markerfacecolor=colour if filled else SENTINEL["surface"],
        markeredgecolor=colour,
        markeredgewidth=1.2,
        clip_on=False,
    )
    ends = (x, score.high, ceiling)
    axis.annotate(
        readable(score.value),
        (max(end for end in ends if end is not None), row.y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=SENTINEL["ink" if row.role == "" else "muted"],
    )
