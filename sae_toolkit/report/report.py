"""What one run claims, what it measured and how it was made: `report.html`, `report.json`, `report_data.json`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sae_toolkit.atomic_write import atomic_write_text
from sae_toolkit.report.expectation import ControlScore, Expectation, ExpectationResult, NamedScore
from sae_toolkit.report.headlines import HEADLINES, Headline
from sae_toolkit.report.plain_json import plain_json

HTML_NAME = "report.html"
JSON_NAME = "report.json"
"""The fixed interface: scores, expectations, config, provenance."""
DATA_NAME = "report_data.json"
"""What only the page needs beyond that: claim, training history, figures, what the cards show."""


@dataclass(frozen=True, kw_only=True)
class ReportedSAE:
    """One SAE of the run, and where its weights are."""

    name: str
    variant: str
    path: str
    """Of the checkpoint, relative to the report's folder."""
    weights_sha256: str
    site: str | None = None
    """The place of the source that it reads; None where that was not said, as of a source with one place."""


@dataclass(frozen=True, kw_only=True)
class FigurePanel:
    """A drawing, with the words that say how to read it."""

    title: str
    caption: str
    """How to read it; what good and bad look like."""
    svg: str

    def __post_init__(self) -> None:
        if not self.svg.startswith("<svg"):
            raise ValueError(f"FigurePanel {self.title!r}: svg starts with {self.svg[:20]!r}, but '<svg' is needed.")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the page shows. Where a number is not finite, the files say null."""

    recipe: str
    claim: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    saes: Sequence[ReportedSAE]
    scores: Sequence[NamedScore]
    controls: Sequence[ControlScore] = ()
    expected: Sequence[Expectation] = ()
    history: Sequence[Mapping[str, Any]] = ()
    """Log records as `train` emits them."""
    figures: Sequence[FigurePanel] = ()
    subjects: Sequence[str] = ()
    """What else has scores: the toy models, sparsities or methods of an experiment."""
    headlines: Sequence[Headline] = HEADLINES
    """The scores that get a card, in this order, as far as they were measured."""
    excluded: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Samples the source left out: "training" and "evaluation", each where known, then by reason."""

    def __post_init__(self) -> None:
        names = self.measured_names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            what = "rows" if self.subjects else "SAEs"
            raise ValueError(f"Report of {self.recipe}: several {what} are called {repeated}. Give each its own name.")
        mistakable = sorted({control.sae for control in self.controls} & set(names))
        if mistakable:
            raise ValueError(f"Report of {self.recipe}: both an SAE and a control are called {mistakable}. Rename one.")
        strangers = sorted({score.sae for score in self.scores} - set(names))
        if strangers:
            what = "rows" if self.subjects else "SAEs"
            raise ValueError(f"Report of {self.recipe}: scores of {strangers}, but its {what} are {names}.")

    @property
    def measured_names(self) -> list[str]:
        """SAEs, then subjects: everything but controls that can have a score."""
        return [*(sae.name for sae in self.saes), *self.subjects]

    def check_expected(self) -> list[tuple[Expectation, ExpectationResult]]:
        """Each expectation with its outcome."""
        measured: list[NamedScore | ControlScore] = [*self.scores, *self.controls]
        return [(expectation, expectation.check(measured)) for expectation in self.expected]

    def controls_of(self, sae: str) -> list[ControlScore]:
        """The controls that an SAE (or another row) competes with: those at its own site, where there are several."""
        sites = {reported.name: reported.site for reported in self.saes}
        if len(set(sites.values())) <= 1 or sae not in sites:
            return list(self.controls)
        return [control for control in self.controls if control.sae.endswith(f" at {sites[sae]}")]

    @property
    def passed(self) -> bool:
        """Whether every expected number is met."""
        return all(result.passed for _, result in self.check_expected())

    def to_json(self) -> dict[str, Any]:
        """The contents of report.json."""
        content = {
            "recipe": self.recipe,
            "config": self.config,
            "provenance": self.provenance,
            "saes": [asdict(sae) for sae in self.saes],
            "scores": [score_json(score) for score in self.scores],
            "expected": [expectation.to_json(result) for expectation, result in self.check_expected()],
            "controls": [{**score_json(control), "role": control.role} for control in self.controls],
            "excluded": self.excluded,
        }
        return {key: plain_json(value, key) for key, value in content.items()}

    def data_json(self) -> dict[str, Any]:
        """The contents of report_data.json."""
        return {
            "claim": self.claim,
            "history": plain_json(self.history, "history"),
            "figures": [asdict(figure) for figure in self.figures],
            "subjects": list(self.subjects),
            "headlines": [asdict(headline) for headline in self.headlines],
        }

    def write(self, folder: Path) -> Path:
        """Writes the three files, each whole or not at all, and returns the path of the page, written last."""
        from sae_toolkit.report.page import render_page  # noqa: PLC0415  (it draws a Report)

        page = render_page(self)
        atomic_write_text(folder / DATA_NAME, json_text(self.data_json()))
        atomic_write_text(folder / JSON_NAME, json_text(self.to_json()))
        atomic_write_text(folder / HTML_NAME, page)
        return folder / HTML_NAME


def score_json(named: NamedScore | ControlScore) -> dict[str, Any]:
    """One flat entry; its keys are part of the fixed interface."""
    return {"name": named.name, "sae": named.sae, **named.score.to_json()}


def json_text(content: Mapping[str, Any]) -> str:
    """Readable JSON that keeps the order of its keys."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
