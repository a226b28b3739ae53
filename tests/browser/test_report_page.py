"""The page of a report in a real browser: its script runs under its own policy."""

from pathlib import Path
from typing import Any

import pytest

from sae_toolkit.metrics.score import Score
from sae_toolkit.report import NamedScore, Report

pytestmark = pytest.mark.slow


def test_theme_order_and_filter_work(visit: Any, tmp_path: Path) -> None:
    scores = [
        NamedScore(name=name, sae="model", score=Score(value=value, n=1, id=f"{name}/v1"))
        for name, value in (("first", 2.0), ("second", 1.0))
    ]
    known = {"config": {}, "provenance": {}, "saes": [], "subjects": ["model"]}
    path = Report(recipe="toy", claim="A claim.", scores=scores, **known).write(tmp_path)
    page = visit(tmp_path, color_scheme="light").page
    page.goto(path.resolve().as_uri())
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="Value").click()
    assert page.locator("#all-scores tbody th").all_text_contents() == ["second", "first"]
    page.get_by_label("Show only rows with").fill("first")
    assert page.locator("#shown").text_content() == "1 of 2 scores"
