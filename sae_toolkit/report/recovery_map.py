"""Which worlds an SAE recovers, by how many features share a dimension and how many are active, with theory on top."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_toolkit.ground_truth.directions import welch_bound
from sae_toolkit.metrics.compressed_sensing import guaranteed_support_size, support_size_at_transition
from sae_toolkit.metrics.packing_bounds import random_coherence_upper
from sae_toolkit.metrics.score import Score
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import SENTINEL, series
from sae_toolkit.report.svg import WIDE, drawn_as_svg

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

CAPTION = (
    "Numbers and shade: share of true features with a latent of their own within cosine .9 (mean over seeds). Framed: "
    "worlds whose sparse codes non-negative least squares reads back from the true directions in more than 90 % of "
    "samples; only there can an SAE have every feature, and dark cells outside would refute it. Crossed: two seeds "
    "agree no better than random dictionaries (PW-MCC within .1 of the floor), so nothing is identified. Lines: where "
    "basis pursuit on random directions goes through 1/2, and the largest support that coherence guarantees, at best "
    "(Welch bound) and for random directions. One empty corner is no failure of the SAE, the other is."
)
RECOVERED = 0.9
DASHES = ("--", "-.", ":")


@dataclass(frozen=True, kw_only=True)
class RecoveryMap:
    """A grid of worlds in d dimensions; rows are support sizes, columns numbers of features, both ascending."""

    d: int
    n_features: Sequence[int]
    support_sizes: Sequence[int]
    recall: Float[Tensor, "n_sizes n_counts"]
    solvable: Bool[Tensor, "n_sizes n_counts"]
    """Cells to frame."""
    unidentifiable: Bool[Tensor, "n_sizes n_counts"]
    """Cells to cross out."""

    @classmethod
    def of(cls, d: int, cells: Mapping[tuple[int, int], Mapping[str, Score | int | float]]) -> "RecoveryMap":
        """From the scores of every cell (support size, n_features), row by row.

        Needs `recall`, `unidentifiable` and `recovered_by_nonnegative_least_squares`.
        """
        sizes, counts = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))

        def grid(name: str) -> Tensor:
            found = [cells[size, count][name] for size in sizes for count in counts]
            values = [score.value if isinstance(score, Score) else float(score) for score in found]
            return torch.tensor(values, dtype=torch.float64).reshape(len(sizes), len(counts))

        return cls(
            d=d,
            n_features=counts,
            support_sizes=sizes,
            recall=grid("recall"),
            solvable=grid("recovered_by_nonnegative_least_squares") > RECOVERED,
            unidentifiable=grid("unidentifiable") > 0,
        )

    def verdict(self) -> dict[str, int]:
        """`recovered`: cells with recall above .9; `recovered_though_unsolvable`: those of them outside the frames."""
        recovered = self.recall > RECOVERED
        return {
            "recovered": int(recovered.sum()),
            "recovered_though_unsolvable": int((recovered & ~self.solvable).sum()),
            "unidentifiable": int(self.unidentifiable.sum()),
        }

    def __post_init__(self) -> None:
        for name, values in (("n_features", self.n_features), ("support_sizes", self.support_sizes)):
            if len(values) < 2 or list(values) != sorted(set(values)):
                raise ValueError(f"RecoveryMap: {name}={list(values)} given. Give at least 2 numbers, ascending.")


def recovery_map_panel(found: RecoveryMap) -> FigurePanel:
    """The figure with its words."""
    title = f"Which worlds are recovered in {found.d} dimensions"
    return FigurePanel(title=title, caption=CAPTION, svg=recovery_map(found))


@drawn_as_svg
def recovery_map(found: RecoveryMap) -> "matplotlib.figure.Figure":
    """Cells of equal size whatever the steps of the grid; curves are drawn between the cells' centres."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    figure = Figure(figsize=(0.8 * WIDE, 0.55 * WIDE))
    axis = figure.subplots()
    draw_cells(axis, found)
    draw_theory(axis, found)
    axis.set_xticks(range(len(found.n_features)), [f"{n / found.d:.3g}" for n in found.n_features])
    axis.set_yticks(range(len(found.support_sizes)), [f"{k / found.d:.3g}" for k in found.support_sizes])
    axis.set_xlim(-0.5, len(found.n_features) - 0.5)
    axis.set_ylim(-0.5, len(found.support_sizes) - 0.5)
    axis.set_xlabel("features per dimension n / d")
    axis.set_ylabel("active features per dimension k / d")
    axis.grid(visible=False)
    axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def draw_cells(axis: "matplotlib.axes.Axes", found: RecoveryMap) -> None:
    """Shade, number, frame and cross of every cell."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415  (slow import)

    for row in range(len(found.support_sizes)):
        for column in range(len(found.n_features)):
            recall = float(found.recall[row, column])
            corner = (column - 0.5, row - 0.5)
            axis.add_patch(Rectangle(corner, 1, 1, facecolor=series(0), alpha=0.75 * recall, linewidth=0))
            axis.annotate(f"{recall:.2f}", (column, row), xytext=(0, 5), textcoords="offset points", ha="center")
            if found.solvable[row, column]:
                inset = (column - 0.46, row - 0.46)
                axis.add_patch(Rectangle(inset, 0.92, 0.92, fill=False, edgecolor=series(2), linewidth=1.6))
    rows, columns = found.unidentifiable.cpu().numpy().nonzero()
    axis.plot(columns, rows - 0.18, "x", color=SENTINEL["ink"], markersize=6, label="unidentifiable")
    axis.plot([], [], "s", color=series(2), fillstyle="none", label="solvable (least squares)")


def draw_theory(axis: "matplotlib.axes.Axes", found: RecoveryMap) -> None:
    """Support sizes against the number of features, each placed between the centres of the cells."""
    low, high = found.n_features[0], found.n_features[-1]
    counts = [n for n in np.unique(np.geomspace(low, high, 40).round().astype(int)).tolist() if n > found.d]
    curves = {
        "basis pursuit, transition": [support_size_at_transition(n, found.d) for n in counts],
        "guaranteed at the Welch bound": [guaranteed_support_size(welch_bound(n, found.d)) for n in counts],
        "guaranteed, random directions": [guaranteed_support_size(random_coherence_upper(n, found.d)) for n in counts],
    }
    for dashes, (label, sizes) in zip(DASHES, curves.items(), strict=True):
        x = [place(n, found.n_features) for n in counts]
        y = [place(k, found.support_sizes) for k in sizes]
        axis.plot(x, y, color=SENTINEL["ink"], linestyle=dashes, linewidth=1.4, label=label)


def place(value: int | float, centres: Sequence[int]) -> float:
    """Where a value lies among numbered cells: linear between centres, and on as at the ends."""
    i = min(max(int(np.searchsorted(centres, value)), 1), len(centres) - 1)
    left, right = centres[i - 1], centres[i]
    return i - 1 + (value - left) / (right - left)
