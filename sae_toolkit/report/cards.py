"""The headline cards: per score one card, per SAE one line with its place between floor, opponents and ceiling."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from sae_toolkit.report.expectation import ControlScore, NamedScore
from sae_toolkit.report.headlines import Headline, best_opponent, present_headlines
from sae_toolkit.report.numbers import readable, readable_interval
from sae_toolkit.report.report import Report
from sae_toolkit.report.style import N_SERIES


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where things lie on a card's scale, in per cent of its width; None: not there."""

    value: float | None
    low: float | None
    high: float | None
    floor: float | None
    ceiling: float | None
    opponent: float | None


@dataclass(frozen=True, kw_only=True)
class CardLine:
    """One SAE, or other row of the report, on a card."""

    sae: str
    colour: str
    value: str
    interval: str
    note: str
    """Floor, ceiling and best opponent in digits, where the SAEs of a card differ in them."""
    track: Track


@dataclass(frozen=True, kw_only=True)
class Card:
    """One headline score."""

    label: str
    question: str
    lines: list[CardLine]
    context: str
    """Floor, ceiling and best opponent in digits, where all SAEs share them."""


def cards(report: Report) -> list[Card]:
    """A card for each headline score that was measured."""
    return [card(report, headline) for headline in present_headlines(report.scores, report.headlines)]


def card(report: Report, headline: Headline) -> Card:
    """All SAEs' values of one headline score on a common scale."""
    scores = [score for score in report.scores if score.name == headline.name]
    rivals = {s.sae: best_opponent(headline, report.controls_of(s.sae)) for s in scores}
    largest = max([0.0, *(x for s in scores for x in (s.score.value, s.score.high or 0) if isfinite(x))])
    scale = 1.0 if largest <= 1 else 1.15 * largest
    order = {name: i for i, name in enumerate(report.measured_names)}
    remarks = [
        {s.sae: bounds_in_words(s) for s in scores},
        {sae: rival_in_words(rival) for sae, rival in rivals.items()},
    ]
    shared = [words for words in remarks if len(set(words.values())) == 1]
    lines = [
        CardLine(
            sae=s.sae,
            colour=f"var(--series-{order[s.sae] % N_SERIES + 1})",
            value=readable(s.score.value),
            interval=readable_interval(s.score.low, s.score.high),
            note=joined(words[s.sae] for words in remarks if words not in shared),
            track=track_of(s, rivals[s.sae], scale),
        )
        for s in scores
    ]
    return Card(
        label=headline.label,
        question=headline.question,
        lines=lines,
        context=joined(words[scores[0].sae] for words in shared),
    )


def joined(remarks: Iterable[str]) -> str:
    """One line of those that say anything."""
    return " · ".join(remark for remark in remarks if remark)


def rival_in_words(rival: ControlScore | None) -> str:
    """The best opponent, where there is one."""
    return "" if rival is None else f"best opponent {readable(rival.score.value)} ({rival.sae})"


def bounds_in_words(named: NamedScore) -> str:
    """Floor and ceiling, as far as they are known."""
    known = [("floor", named.score.floor), ("ceiling", named.score.ceiling)]
    return joined(f"{what} {readable(value)}" for what, value in known if value is not None)


def track_of(named: NamedScore, rival: ControlScore | None, scale: float) -> Track:
    """Positions from 0 (at or below 0) to 100."""

    def place(x: float | None) -> float | None:
        return None if x is None or not isfinite(x) else round(100 * min(max(x / scale, 0.0), 1.0), 2)

    score = named.score
    return Track(
        value=place(score.value),
        low=place(score.low),
        high=place(score.high),
        floor=place(score.floor),
        ceiling=place(score.ceiling),
        opponent=place(rival.score.value) if rival is not None else None,
    )
