"""The tables of the page as rows of ready text: controls against SAEs, all scores, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sae_toolkit.report.expectation import ControlScore, Expectation, NamedScore
from sae_toolkit.report.headlines import Headline, best_opponent, label, present_headlines
from sae_toolkit.report.numbers import readable, readable_interval, readable_setting
from sae_toolkit.report.report import Report

OURS = "SAE"
ROLE_ORDER = ("ceiling", OURS, "opponent", "floor")


@dataclass(frozen=True, kw_only=True)
class LadderCell:
    """One dictionary's value of one headline score."""

    text: str
    best_opponent: bool


@dataclass(frozen=True, kw_only=True)
class LadderRow:
    """One dictionary, trained or not."""

    name: str
    role: str
    cells: list[LadderCell]


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One score; `*_key` is what its column is sorted by, empty where there is no number."""

    sae: str
    name: str
    value: str
    value_key: str
    interval: str
    floor: str
    floor_key: str
    ceiling: str
    ceiling_key: str
    position: str
    position_key: str
    n: str
    n_key: str
    id: str


def ladder(report: Report) -> tuple[list[Headline], list[LadderRow]]:
    """Columns and rows of the control table, from what is known to what is chance; empty without controls."""
    if not report.controls:
        return [], []
    columns = present_headlines(report.controls, report.headlines)
    first = columns[0].name if columns else ""
    ours = OURS if report.saes else "measured"
    roles = {s.sae: ours for s in report.scores} | {c.sae: c.role for c in report.controls}
    measured: list[NamedScore | ControlScore] = [*report.scores, *report.controls]
    values = {(score.sae, score.name): score for score in measured}

    def rank(sae: str) -> tuple[int, float]:
        found = values.get((sae, first))
        known = found is not None and isfinite(found.score.value)
        role = ROLE_ORDER.index(OURS if roles[sae] == ours else roles[sae])
        return role, -found.score.value if found is not None and known else float("inf")

    best = {h.name: [best_opponent(h, report.controls_of(sae.name)) for sae in report.saes] for h in columns}
    return columns, [
        LadderRow(
            name=sae,
            role=roles[sae],
            cells=[ladder_cell(values.get((sae, h.name)), best[h.name]) for h in columns],
        )
        for sae in sorted(roles, key=rank)
    ]


def ladder_cell(found: NamedScore | ControlScore | None, best: Sequence[ControlScore | None]) -> LadderCell:
    """The value, marked where it is the best that an opponent of some SAE reaches."""
    return LadderCell(
        text=readable(found.score.value if found is not None else None),
        best_opponent=found is not None and any(found is rival for rival in best),
    )


def score_rows(report: Report) -> list[ScoreRow]:
    """Every score of everything but the controls."""
    return [score_row(named) for named in report.scores]


def score_row(named: NamedScore) -> ScoreRow:
    """One row of the score table."""
    score, position = named.score, named.score.normalised()
    return ScoreRow(
        sae=named.sae,
        name=named.name,
        value=readable(score.value),
        value_key=key(score.value),
        interval=readable_interval(score.low, score.high),
        floor=readable(score.floor),
        floor_key=key(score.floor),
        ceiling=readable(score.ceiling),
        ceiling_key=key(score.ceiling),
        position=readable(None) if position is None else f"{100 * position:.0f} %".replace("-", "−"),
        position_key=key(position),
        n=f"{score.n:,}",
        n_key=str(score.n),
        id=score.id,
    )


def key(value: float | None) -> str:
    """A number for sorting."""
    return "" if value is None or not isfinite(value) else repr(float(value))


def settings(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, readable value)."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            rows += settings(value, f"{path}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            rows += settings({str(i): item for i, item in enumerate(value)}, f"{path}.")
        else:
            rows.append((path, "none" if value == {} else readable_setting(value)))
    return rows


def excluded_rows(report: Report) -> list[tuple[str, str]]:
    """What the source left out of which pass, as ("training", "position 1,234; token_id 99")."""
    return [
        (phase, "; ".join(f"{reason} {n:,}" for reason, n in counts.items() if n) or "nothing")
        for phase, counts in report.excluded.items()
    ]


def expectation_rows(report: Report) -> list[dict[str, Any]]:
    """Each expected number, what was asked and what came out."""
    rows = []
    for expectation, result in report.check_expected():
        rows.append(
            {
                "label": label(expectation.score, report.headlines),
                "name": expectation.score,
                "sae": expectation.sae,
                "asked": asked(expectation),
                "value": readable(result.value),
                "passed": result.passed,
                "reason": result.reason,
            }
        )
    return rows


def asked(expectation: Expectation) -> str:
    """The bounds, as short as they can be said."""
    low, high = expectation.at_least, expectation.at_most
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"≥ {low:g}" if low is not None else f"≤ {high:g}"
