"""What is found of learned superposition along a sweep of its sparsity, beside how the toy models themselves pack."""

from collections.abc import Sequence

from sae_toolkit.report.expectation import NamedScore
from sae_toolkit.report.line_chart import Line, line_chart_panel
from sae_toolkit.report.report import FigurePanel

TOY_LINES = {"dimensions_per_feature": "D* of the toy model", "represented_share": "features it represents"}
"""Scores of the toy models that are drawn beside those of the dictionaries."""
PANELS = (
    (
        "recall_at_0.9",
        "Which features are found",
        "Share of the toy model's represented features that have a latent of their own within cosine .9, by method. "
        "Dashed: the toy model's own phase change. At D* = 1/2 features lie in opposite pairs, each pair in a "
        "dimension of its own; below, more of them share. Good is 1; random directions find nothing.",
    ),
    (
        "mean_matched_cosine",
        "How close the latents come",
        "Mean cosine between each represented feature and the latent matched to it, one to one. Good is 1. The floor, "
        "random directions, lies far above 0, because many directions come close to anything in few dimensions.",
    ),
    (
        "explained_variance",
        "How much is reconstructed",
        "Explained variance of the same dictionaries. Compare its left end with that of the first figure: a dictionary "
        "may reconstruct nearly everything and have found next to nothing.",
    ),
)


def recovery_curves_panels(scores: Sequence[NamedScore]) -> list[FigurePanel]:
    """Recall with the toy models' own curves, cosine, explained variance, each against 1 / p.

    Rows are called "<method> p=<p>"; those of the toy models have the scores in `TOY_LINES`.
    """
    toy = [curve for name, words in TOY_LINES.items() for curve in curves_of(scores, name, words)]
    return [
        line_chart_panel(
            title,
            caption,
            curves_of(scores, name),
            x_label="1 / p (sparser to the right)",
            y_label=name.replace("_", " "),
            theory=toy if name == "recall_at_0.9" else (),
            log_x=True,
        )
        for name, title, caption in PANELS
    ]


def curves_of(scores: Sequence[NamedScore], name: str, words: str | None = None) -> list[Line]:
    """One score against 1 / p, a line for each method; `words` replaces its name."""
    points: dict[str, dict[float, float]] = {}
    for score in scores:
        method, _, p = score.sae.rpartition(" p=")
        if score.name == name:
            points.setdefault(words or method, {})[1 / float(p)] = score.score.value
    return [Line(name=method, x=list(found), y=list(found.values())) for method, found in points.items()]
