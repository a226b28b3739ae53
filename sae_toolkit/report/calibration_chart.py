"""What truth-free scores say against what is true: one dot per dictionary, one frame per score."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sae_toolkit.metrics.rank_correlation import rank_correlation
from sae_toolkit.metrics.score import Score
from sae_toolkit.report.report import FigurePanel
from sae_toolkit.report.style import series
from sae_toolkit.report.svg import WIDE, columns_for, drawn_as_svg

if TYPE_CHECKING:
    import matplotlib.figure

HEIGHT = 2.9
MARKERS = ("o", "^", "s", "D")
"""Of the kinds, beside their colours."""


def calibration_panel(
    found: Mapping[str, Mapping[str, Score]], kinds: Mapping[str, str], guesses: Sequence[str], truth: str
) -> FigurePanel:
    """The figure with its words; `kinds` says of each dictionary in `found` what it is, `guesses` are truth-free."""
    return FigurePanel(
        title=f"Truth-free scores against {truth.replace('_', ' ')}",
        caption="One dot per dictionary. A score that can be trusted without the truth rises (or falls) with it. The "
        "number above each frame is Spearman's rank correlation over the SAEs alone: among dictionaries that nobody "
        "trained, too, a score must not be fooled.",
        svg=calibration_chart(found, kinds, guesses, truth),
    )


@drawn_as_svg
def calibration_chart(
    found: Mapping[str, Mapping[str, Score]], kinds: Mapping[str, str], guesses: Sequence[str], truth: str
) -> "matplotlib.figure.Figure":
    """One frame per truth-free score, the truth upwards; kinds by colour and shape, SAEs (those of "SAE") first."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    columns = columns_for(len(guesses))
    rows = -(-len(guesses) // columns)
    figure = Figure(figsize=(WIDE, HEIGHT * rows))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten().tolist()
    for unused in axes[len(guesses) :]:
        unused.remove()
    order = list(dict.fromkeys(kinds.values()))
    for axis, guess in zip(axes, guesses, strict=False):
        for index, kind in enumerate(order):
            members = [name for name in found if kinds[name] == kind]
            axis.scatter(
                [found[name][guess].value for name in members],
                [found[name][truth].value for name in members],
                s=16,
                color=series(index),
                marker=MARKERS[index % len(MARKERS)],
                label=kind,
            )
        saes = [name for name in found if kinds[name] == "SAE"]
        rho = rank_correlation([found[n][guess].value for n in saes], [found[n][truth].value for n in saes])
        axis.set_title(f"rank correlation {rho.value:.2f}", fontsize=8)
        axis.set_xlabel(guess.replace("_", " "))
        axis.set_ylabel(truth.replace("_", " "))
    axes[0].legend(loc="best", fontsize=7)
    return figure
