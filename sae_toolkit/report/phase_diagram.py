"""Maps of what a model does with a feature, over its sparsity and its importance, with the theory's boundaries.

After Elhage et al. 2022 (arXiv 2209.10652), "Superposition as a Phase Change".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import log10
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, series
from sae_toolkit.report.svg import WIDE, drawn_as_svg, short, space

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.path

COLOURS = (SENTINEL["grid"], series(0), series(1), series(2), series(3))
"""Of the classes: ignored, dedicated, shared, ..."""
OPACITY = 0.8
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")


@dataclass(frozen=True, kw_only=True)
class PhaseMap:
    """One class per cell of a grid that is evenly spaced in log p and in log r."""

    name: str
    p: Float[Tensor, " n_p"]
    """Probability that a feature is active, ascending."""
    r: Float[Tensor, " n_r"]
    """Importance of the extra feature relative to the others, ascending."""
    classes: Int[Tensor, "n_r n_p"]
    """Index into the names of the classes."""
    marked: Bool[Tensor, "n_r n_p"] | None = None
    """Cells to cross out, for example those that disagree with the theory."""

    def __post_init__(self) -> None:
        for name, values in (("p", self.p), ("r", self.r)):
            steps = values.double().log().diff()
            if not len(steps) or not bool((steps > 0).all()) or float(steps.max() - steps.min()) > 1e-3:
                raise ValueError(f"PhaseMap {self.name}: {name} must be ascending and evenly spaced in its logarithm.")


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """A curve between classes."""

    label: str
    p: Float[Tensor, " n"]
    r: Float[Tensor, " n"]


def phase_diagram_panel(
    maps: Sequence[PhaseMap], class_names: Sequence[str], boundaries: Sequence[Boundary] = ()
) -> FigurePanel:
    """The figure with its words."""
    crossed = ""
    if any(phase_map.marked is not None for phase_map in maps):
        crossed = " Crossed cells disagree with the theory."
    return FigurePanel(
        title="Phase diagram",
        caption="What the best of many trained models does with the extra feature, and what theory says is cheapest. "
        "p is the probability that a feature is active. Left: dense features; right: sparse ones. Bottom: an "
        "unimportant extra feature; top: an important one. The change from one colour to the next is sudden, without "
        f"a stretch where features are half there.{crossed} Disagreement belongs on the boundary; the closed form is "
        "only a lower bound on it, since it fixes norms at 1 and biases at 0.",
        svg=phase_diagram(maps, class_names, boundaries),
    )


@drawn_as_svg
def phase_diagram(
    maps: Sequence[PhaseMap], class_names: Sequence[str], boundaries: Sequence[Boundary] = ()
) -> "matplotlib.figure.Figure":
    """The maps side by side on the same axes, every boundary in each."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    if not maps:
        raise ValueError("phase_diagram: no map given. Give at least one PhaseMap.")
    used = max(int(phase_map.classes.max()) for phase_map in maps) + 1
    if used > len(class_names) or len(class_names) > len(COLOURS):
        raise ValueError(
            f"phase_diagram: {used} classes in the maps, {len(class_names)} names given. "
            f"Name every class, at most {len(COLOURS)}."
        )
    figure = Figure(figsize=(WIDE, 0.8 * WIDE / max(len(maps), 2) + 0.5))
    axes = figure.subplots(1, len(maps), sharex=True, sharey=True, squeeze=False)[0]
    for axis, phase_map in zip(axes, maps, strict=True):
        draw_map(axis, phase_map)
        for i, boundary in enumerate(boundaries):
            draw_boundary(axis, boundary, DASHES[i % len(DASHES)])
        axis.set_title(short(phase_map.name, 50))
        axis.set_xlabel("p (sparser to the right)")
    extents = np.array([extent(phase_map) for phase_map in maps])
    axes[0].set_xlim(extents[:, 1].min(), extents[:, 0].max())  # what all maps cover: a fine one has smaller cells
    axes[0].set_ylim(extents[:, 2].max(), extents[:, 3].min())
    axes[0].set_ylabel("importance of the extra feature")
    draw_legend(figure, class_names, boundaries)
    space(figure, wspace=0.04)
    return figure


def extent(phase_map: PhaseMap) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the grid in powers of ten: half a cell beyond the outermost centres."""
    edges: list[float] = []
    for values in (phase_map.p.double(), phase_map.r.double()):
        first, last = log10(float(values[0])), log10(float(values[-1]))
        half = (last - first) / (len(values) - 1) / 2
        edges += [first - half, last + half]
    return edges[0], edges[1], edges[2], edges[3]


def draw_map(axis: "matplotlib.axes.Axes", phase_map: PhaseMap) -> None:
    """Cells, and crosses where they are marked. Coordinates are powers of ten."""
    from matplotlib.patches import PathPatch  # noqa: PLC0415  (slow import)
    from matplotlib.ticker import FixedLocator, MultipleLocator  # noqa: PLC0415

    for index, colour in enumerate(COLOURS):
        if bool((phase_map.classes == index).any()):
            axis.add_patch(PathPatch(region(phase_map, index), facecolor=colour, alpha=OPACITY, linewidth=0))
    if phase_map.marked is not None:
        rows, columns = phase_map.marked.cpu().numpy().nonzero()
        p, r = phase_map.p.double().log10().numpy(), phase_map.r.double().log10().numpy()
        axis.plot(p[columns], r[rows], "x", color=SENTINEL["ink"], markersize=6, markeredgewidth=1.4, clip_on=False)
    axis.grid(visible=False)
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_locator(MultipleLocator(1))
        ticks.set_major_formatter(lambda value, _: f"{10.0**value:g}")
        ticks.set_minor_locator(FixedLocator([e + log10(digit) for e in range(-6, 6) for digit in range(2, 10)]))
    axis.tick_params(which="both", color=SENTINEL["muted"])


def region(phase_map: PhaseMap, index: int) -> "matplotlib.path.Path":
    """All cells of one class as a single path: separate rectangles would show seams."""
    from matplotlib.path import Path  # noqa: PLC0415  (slow import)

    left, right, bottom, top = extent(phase_map)
    width, height = (right - left) / len(phase_map.p), (top - bottom) / len(phase_map.r)
    rectangles = []
    for row, classes in enumerate(phase_map.classes.tolist()):
        y = bottom + row * height
        for start, length, found in runs(classes):
            if found == index:
                x, end = left + start * width, left + (start + length) * width
                corners = [(x, y), (end, y), (end, y + height), (x, y + height), (x, y)]
                rectangles.append(Path(corners, closed=True))
    return Path.make_compound_path(*rectangles)


def runs(classes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Stretches of one class as (start, length, class): a few rectangles in place of a cell each."""
    found: list[tuple[int, int, int]] = []
    for index, members in groupby(classes):
        start = found[-1][0] + found[-1][1] if found else 0
        found.append((start, len(list(members)), index))
    return found


def draw_boundary(axis: "matplotlib.axes.Axes", boundary: Boundary, dashes: str) -> None:
    """One curve."""
    x, y = boundary.p.double().log10().numpy(), boundary.r.double().log10().numpy()
    axis.plot(x, y, color=SENTINEL["ink"], linewidth=1.6, linestyle=dashes)


def draw_legend(figure: "matplotlib.figure.Figure", class_names: Sequence[str], boundaries: Sequence[Boundary]) -> None:
    """Colours of the classes, then dashes of the boundaries."""
    from matplotlib.lines import Line2D  # noqa: PLC0415  (slow import)
    from matplotlib.patches import Patch  # noqa: PLC0415

    handles: list[Patch | Line2D] = [Patch(facecolor=c, alpha=OPACITY) for c in COLOURS[: len(class_names)]]
    handles += [
        Line2D([], [], color=SENTINEL["ink"], linestyle=DASHES[i % len(DASHES)]) for i in range(len(boundaries))
    ]
    names = [*class_names, *(boundary.label for boundary in boundaries)]
    figure.legend(handles, names, loc="outside upper left", ncols=min(len(names), 5))
