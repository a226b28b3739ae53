"""A written report back as a `Report`, so that its page can be drawn anew."""

import json
from collections.abc import Mapping
from dataclasses import fields
from math import nan
from pathlib import Path
from typing import Any

from sae_toolkit.metrics.score import Score
from sae_toolkit.report.expectation import ControlScore, Expectation, NamedScore
from sae_toolkit.report.headlines import HEADLINES, Headline
from sae_toolkit.report.report import DATA_NAME, JSON_NAME, FigurePanel, Report, ReportedSAE

SCORE_FIELDS = [field.name for field in fields(Score)]


def read_report(path: Path) -> Report:
    """Reads a report's folder, or its report.json with report_data.json beside it."""
    folder = path if path.is_dir() else path.parent
    facts, data = read_json(folder / JSON_NAME if path.is_dir() else path), read_json(folder / DATA_NAME)
    try:
        return Report(
            recipe=facts["recipe"],
            claim=data["claim"],
            config=facts["config"],
            provenance=facts["provenance"],
            saes=[ReportedSAE(**sae) for sae in facts["saes"]],
            scores=[NamedScore(name=s["name"], sae=s["sae"], score=read_score(s)) for s in facts["scores"]],
            controls=[
                ControlScore(name=c["name"], sae=c["sae"], score=read_score(c), role=c["role"])
                for c in facts["controls"]
            ],
            expected=[
                Expectation(score=e["score"], sae=e["sae"], at_least=e["at_least"], at_most=e["at_most"])
                for e in facts["expected"]
            ],
            history=data["history"],
            figures=[FigurePanel(**figure) for figure in data["figures"]],
            # reports written before there were experiments have neither
            subjects=data.get("subjects", []),
            headlines=[Headline(**headline) for headline in data["headlines"]] if "headlines" in data else HEADLINES,
            excluded=facts["excluded"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"read_report: {folder} holds no report of this version of the toolkit: {error}.") from error


def read_score(entry: Mapping[str, Any]) -> Score:
    """The `Score` of one flat entry; a value of null was NaN."""
    score = {name: entry[name] for name in SCORE_FIELDS}
    return Score(**(score | {"value": nan if score["value"] is None else score["value"]}))


def read_json(path: Path) -> Any:
    """A JSON file, with errors that name it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"read_report: {path} does not exist. A report is a folder with {JSON_NAME} and {DATA_NAME}."
        ) from None
    except ValueError as error:
        raise ValueError(f"read_report: {path} is not readable JSON: {error}.") from error
