"""How often each solver reads sparse codes back, with the transition that theory puts there."""

from collections.abc import Mapping

from sae_toolkit.metrics.score import Score
from sae_toolkit.report.line_chart import Reference, line_chart_panel, line_of_scores
from sae_toolkit.report.report import FigurePanel

SOLVERS = {
    "recovered_by_basis_pursuit": "basis pursuit",
    "recovered_by_lasso": "lasso (scikit-learn)",
    "recovered_by_nonnegative_least_squares": "non-negative least squares",
    "recovered_by_pursuit": "orthogonal pursuit",
    "recovered_by_linear_top_k": "one product, top k (recall)",
}
CAPTION = (
    "Share of samples whose codes come back, by method; bands are 95 % intervals over samples. One product finds a "
    "share of the support, which is drawn instead: it hardly ever finds all of it. The dotted line is where theory "
    "says that basis pursuit goes through 1/2; the lasso of another library covers it. Nothing is learned here: the "
    "directions are given, so that this is the limit of what any dictionary with such an encoder can do."
)


def code_recovery_panel(
    title: str, found: Mapping[int, Mapping[str, Score]], x_label: str, theory: float
) -> FigurePanel:
    """`recovery_rates` by support size or by dimension, with the theoretical transition on the same axis."""
    lines = [
        line_of_scores(words, list(found), [rates[name] for rates in found.values()]) for name, words in SOLVERS.items()
    ]
    reference = Reference(label=f"theory: {theory:.1f}", x=theory)
    return line_chart_panel(title, CAPTION, lines, x_label=x_label, y_label="share recovered", references=[reference])
