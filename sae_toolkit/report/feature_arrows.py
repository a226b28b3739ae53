"""The features of a two-dimensional model as arrows: still for several models, or moving while they train.

After Elhage et al. 2022 (arXiv 2209.10652), "Demonstrating Superposition" (five features in two dimensions).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import N_SERIES, SENTINEL, series
from sae_toolkit.report.svg import WIDE, drawn_as_svg, frame_id, short, space

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

COLUMNS = 5
LEAST_COLUMNS = 4
"""So that one or two models are not drawn much larger than five."""
MOST_NUMBERED = 12
"""Features that are named in the legend."""


def feature_arrows_panel(models: Mapping[str, Float[Tensor, "_ _"]]) -> FigurePanel:
    """The figure with its words; `models`: name (a sparsity, say) -> W [2 n_features]."""
    return FigurePanel(
        title="Directions of the features",
        caption="Each arrow is one feature's direction in the hidden plane, feature 1 the most important; a dot at "
        "the centre is a feature that the model ignores, the dotted circle has radius 1. Dense features get a "
        "right angle and the rest is dropped; sparser ones share lines as opposite pairs, then spread to a regular "
        "polygon.",
        svg=feature_arrows(models),
    )


def training_frames_panel(
    frames: Mapping[str, Float[Tensor, "_ two _"]],
    steps: Sequence[int],
    losses: Mapping[str, Sequence[int | float]] | None = None,
) -> FigurePanel:
    """The figure with its words; `frames`: name -> W at each of `steps`; `losses`, if given, are those at the steps."""
    return FigurePanel(
        title="Directions while the models train",
        caption="Drag the slider, or press play: each arrow is one feature's direction in the hidden plane, the dotted "
        "circle has radius 1. Features leave the centre one after the other, and then push each other apart. "
        "A pair that gets stuck side by side, or a feature that stays behind, is a local minimum.",
        svg=training_frames(frames, steps, losses),
    )


@drawn_as_svg
def feature_arrows(models: Mapping[str, Float[Tensor, "_ _"]]) -> "matplotlib.figure.Figure":
    """One plane per model."""
    weights = {name: plane(name, W) for name, W in models.items()}
    figure, axes = planes(weights)
    for axis, W in zip(axes, weights.values(), strict=True):
        draw_arrows(axis, W)
    return figure


@drawn_as_svg
def training_frames(
    frames: Mapping[str, Float[Tensor, "_ two _"]],
    steps: Sequence[int],
    losses: Mapping[str, Sequence[int | float]] | None = None,
) -> "matplotlib.figure.Figure":
    """One plane per model; the page shows one step at a time, a file by itself the last one."""
    for name, weights_at in frames.items():
        if len(weights_at) != len(steps):
            raise ValueError(
                f"training_frames: {name} has {len(weights_at)} snapshots for {len(steps)} steps. Give one for each."
            )
    weights = {name: np.stack([plane(name, W) for W in models]) for name, models in frames.items()}
    figure, axes = planes(weights)
    for axis, (name, snapshots) in zip(axes, weights.items(), strict=True):
        for i, snapshot in enumerate(snapshots):
            draw_arrows(axis, snapshot, gid=frame_id(i))
            if losses is not None:
                draw_note(axis, f"loss {losses[name][i]:.3g}", frame_id(i))
    for i, step in enumerate(steps):
        figure.text(0.995, 0.995, f"step {step:,}", ha="right", va="top", fontsize=9, weight="bold", gid=frame_id(i))
    return figure


def plane(name: str, W: Float[Tensor, "_ n_features"]) -> Float64[np.ndarray, "_ n_features"]:
    """The weights as an array, if they can be drawn."""
    if W.shape[0] != 2:
        raise ValueError(f"feature_arrows: {name} has n_hidden={W.shape[0]}, but a plane has 2. Draw gram_stacks.")
    return W.detach().cpu().double().numpy()


def planes(
    weights: Mapping[str, Float64[np.ndarray, "..."]],
) -> "tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]":
    """An empty plane per model, all to one scale, and a legend of the features."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)
    from matplotlib.patches import Circle  # noqa: PLC0415

    if not weights:
        raise ValueError("feature_arrows: no model given. Give {name: W}.")
    columns = min(COLUMNS, max(len(weights), LEAST_COLUMNS))
    rows = -(-len(weights) // columns)
    figure = Figure(figsize=(WIDE, rows * (WIDE / columns + 0.22) + 0.35))
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[len(weights) :]:
        unused.remove()
    reach = 1.08 * max([1.0, *(float(np.linalg.norm(W, axis=-2).max()) for W in weights.values())])
    for axis, name in zip(axes, weights, strict=False):
        axis.add_patch(Circle((0, 0), 1, fill=False, color=SENTINEL["floor"], linestyle=":", linewidth=0.9))
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axis.set_aspect("equal")
        axis.set_title(short(name, 30))
    draw_legend(figure, max(W.shape[-1] for W in weights.values()))
    space(figure, wspace=0.04, hspace=0.04)
    return figure, axes[: len(weights)]


def draw_arrows(
    axis: "matplotlib.axes.Axes", W: Float64[np.ndarray, "two n_features"], *, gid: str | None = None
) -> None:
    """All features from the origin, the least important one first, so that it is covered and not covering."""
    x, y = W[:, ::-1]
    colours = [series(i) for i in range(len(x))][::-1]
    arrows = axis.quiver(
        np.zeros_like(x), np.zeros_like(x), x, y, color=colours, angles="xy", scale_units="xy", scale=1, width=0.016,
        headwidth=3.6, headlength=4.2, headaxislength=3.8, zorder=3, clip_on=False,
    )  # fmt: skip
    arrows.set_gid(gid)


def draw_note(axis: "matplotlib.axes.Axes", text: str, gid: str) -> None:
    """A few words above the upper right corner of a plane."""
    style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 7.5, "color": SENTINEL["muted"]}
    axis.text(1, 1.02, text, transform=axis.transAxes, gid=gid, **style)


def draw_legend(figure: "matplotlib.figure.Figure", n_features: int) -> None:
    """Which colour is which feature; beyond six the colours repeat."""
    from matplotlib.lines import Line2D  # noqa: PLC0415  (slow import)

    shown = min(n_features, MOST_NUMBERED, N_SERIES)
    handles = [Line2D([], [], color=series(i), linewidth=2.2) for i in range(shown)]
    names = [
        "feature " + ", ".join(str(j + 1) for j in range(i, min(n_features, MOST_NUMBERED), N_SERIES))
        for i in range(shown)
    ]
    figure.legend(handles, names, loc="outside upper left", ncols=shown)
