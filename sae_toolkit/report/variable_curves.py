"""How well variables of a known language are recovered, against the sparsity of SAEs of several widths."""

from collections.abc import Mapping, Sequence

from sae_toolkit.metrics.score import Score
from sae_toolkit.report.line_chart import Line, line_chart_panel
from sae_toolkit.report.report import FigurePanel

SHOWN = {
    "variable_f1_value": "Values: all",
    "variable_f1_value_rare": "Values: the rarer half",
    "variable_f1_value_common": "Values: the commoner half",
    "variable_f1_tone": "Tone: parents of the values",
    "variable_f1_number": "Number of a subject whose verb is still to come",
    "variable_f1_topic": "Topic: inferred, never said",
    "variable_f1_slot": "What kind of word comes next",
}
"""Scores that are drawn where they were measured, and their titles."""
CAPTION = (
    "F1 of the best latent, chosen on one half of the held-out tokens and scored on the other, mean over the "
    "variable's values. Intervals stand in the table."
)


def variable_curves_panels(found: Mapping[tuple[int, int], Mapping[str, Score]]) -> list[FigurePanel]:
    """One figure per score, one line per width; `found` has the scores of each (width, k)."""
    return [
        line_chart_panel(
            title,
            CAPTION,
            [curve(found, score, width) for width in dict.fromkeys(width for width, _ in found)],
            x_label="k: active latents",
            y_label="F1",
            log_x=True,
        )
        for score, title in SHOWN.items()
        if all(score in scores for scores in found.values())
    ]


def curve(found: Mapping[tuple[int, int], Mapping[str, Score]], score: str, width: int) -> Line:
    """The score of one width's SAEs."""
    k: Sequence[int] = [each for other, each in found if other == width]
    return Line(name=f"{width} latents", x=k, y=[found[width, each][score].value for each in k])
