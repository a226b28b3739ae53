"""Curves of sweeps: which numbers end up on which line."""

import pytest

from sae_toolkit.metrics import Score
from sae_toolkit.report import code_recovery_panel, recovery_curves_panels, scores_of
from sae_toolkit.report.code_recovery import SOLVERS
from sae_toolkit.report.expectation import NamedScore
from sae_toolkit.report.recovery_curves import curves_of


@pytest.fixture
def scores() -> list[NamedScore]:
    rows: list[NamedScore] = []
    for p, recall in ((0.5, 0.1), (0.25, 0.9)):
        found = {"recall_at_0.9": recall, "mean_matched_cosine": 0.5, "explained_variance": 1 - recall}
        rows += scores_of(f"TopK p={p:g}", found)
        rows += scores_of(f"toy model p={p:g}", {"dimensions_per_feature": 0.5, "represented_share": 1.0})
    return rows


def test_a_line_runs_over_1_by_p(scores: list[NamedScore]) -> None:
    (line,) = curves_of(scores, "recall_at_0.9")
    assert (line.name, list(line.x), list(line.y)) == ("TopK", [2.0, 4.0], [0.1, 0.9])


def test_the_toy_models_own_curves_lie_over_the_recall_alone(scores: list[NamedScore]) -> None:
    recall, cosine, variance = recovery_curves_panels(scores)
    assert "D* of the toy model" in recall.svg
    assert "D* of the toy model" not in cosine.svg + variance.svg


def test_every_solver_is_drawn_with_the_transition() -> None:
    rates = {name: Score(value=0.5, n=10, id=f"{name}/v1") for name in SOLVERS}
    panel = code_recovery_panel("8 in 4", {1: rates, 2: rates}, "k", 1.5)
    assert all(words in panel.svg for words in [*SOLVERS.values(), "theory: 1.5"])
