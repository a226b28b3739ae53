"""Which SAEs are unbeaten, and when there is something to draw."""

from math import nan

from sae_toolkit.metrics.score import Score
from sae_toolkit.report import ControlScore, NamedScore
from sae_toolkit.report.pareto import Point, pareto_panel, points_of, unbeaten


def scores(sae: str, l0: float, quality: float, name: str = "explained_variance") -> list[NamedScore]:
    values = {"l0": l0, name: quality}
    return [NamedScore(name=n, sae=sae, score=Score(value=float(v), n=9, id=f"{n}/v1")) for n, v in values.items()]


def test_the_front_joins_what_nothing_beats() -> None:
    points = [
        Point(name, float(l0), q, "sae") for name, l0, q in [("a", 2, 0.5), ("b", 4, 0.4), ("c", 4, 0.7), ("d", 8, 0.7)]
    ]
    # b has more latents and less quality than a; d pays more than c for the same
    assert [point.name for point in unbeaten(points)] == ["a", "c"]


def test_points_need_both_numbers() -> None:
    found = points_of("explained_variance", [*scores("a", 2, 0.5), *scores("b", 3, nan), *scores("c", 0, 0.2)], [])
    assert [point.name for point in found] == ["a"]


def test_controls_are_points_too() -> None:
    rivals = [ControlScore(name=s.name, sae=s.sae, score=s.score, role="opponent") for s in scores("kmeans", 2, 0.4)]
    panel = pareto_panel([*scores("first", 2, 0.5), *scores("second", 4, 0.6)], rivals)
    assert panel is not None
    assert "first" in panel.svg
    assert "opponents" in panel.svg


def test_one_sae_gives_no_picture() -> None:
    assert pareto_panel(scores("a", 2, 0.5)) is None


def test_only_scores_that_several_have_get_a_plot() -> None:
    panel = pareto_panel([*scores("a", 2, 0.5), *scores("b", 4, 0.6), *scores("c", 4, 0.6, "recall_at_0.9")])
    assert panel is not None
    assert "Explained variance" in panel.svg
    assert "Recall at 0.9" not in panel.svg
