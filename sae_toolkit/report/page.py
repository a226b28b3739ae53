"""The page: one HTML file without a link, that opens with the network off and shows what the run found."""

import re
from dataclasses import asdict
from typing import Any

from sae_toolkit.report.cards import cards
from sae_toolkit.report.plain_json import plain_json
from sae_toolkit.report.report import FigurePanel, Report
from sae_toolkit.report.self_contained import content_policy, packaged, render
from sae_toolkit.report.style import css_variables
from sae_toolkit.report.tables import excluded_rows, expectation_rows, ladder, score_rows, settings

WIDE_FROM = 1.6
"""Figures at least this many times as wide as high take a row of the page to themselves."""


def render_page(report: Report) -> str:
    """The page as HTML. All text is escaped; figures are the only markup taken as it is, and no script in them runs."""
    from markupsafe import Markup  # noqa: PLC0415

    script = packaged("theme.js") + packaged("page.js")
    columns, rows = ladder(report)
    content: dict[str, Any] = {
        "report": report,
        "policy": content_policy(script),
        "css": Markup(css_variables() + packaged("page.css")),
        "script": Markup(script),
        "verdict": verdict(report),
        "expected": expectation_rows(report),
        "cards": cards(report),
        "ladder_columns": columns,
        "ladder_rows": rows,
        "figures": [figure_context(figure, Markup(figure.svg)) for figure in report.figures],
        "scores": score_rows(report),
        "placed": any(sae.site is not None for sae in report.saes),
        "excluded": excluded_rows(report),
        "config": settings(plain_json(report.config, "config")),
        "provenance": settings(plain_json(report.provenance, "provenance")),
    }
    return render("page.html.jinja", content)


def verdict(report: Report) -> dict[str, str]:
    """One line: whether the expected numbers were met."""
    results = [result for _, result in report.check_expected()]
    missed = sum(not result.passed for result in results)
    if not results:
        return {"kind": "none", "text": "No expected numbers were stated for this run."}
    numbers = f"{len(results)} expected number{'s' if len(results) > 1 else ''}"
    if missed:
        return {"kind": "bad", "text": f"{missed} of {numbers} missed"}
    return {"kind": "good", "text": f"All {numbers} met" if len(results) > 1 else f"The {numbers[2:]} is met"}


def figure_context(figure: FigurePanel, svg: str) -> dict[str, Any]:
    """A figure and the room it needs."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg)
    width, height = (float(box[1]), float(box[2])) if box else (1.0, 1.0)
    wide = width / height >= WIDE_FROM or width > 500
    return {**asdict(figure), "svg": svg, "wide": wide}
