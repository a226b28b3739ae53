"""Every score of a report as one flat table that spreadsheets and pandas read."""

import csv
import io
from math import isfinite
from pathlib import Path

from sae_toolkit.atomic_write import atomic_write_text
from sae_toolkit.report.expectation import ControlScore, NamedScore
from sae_toolkit.report.report import Report

CSV_NAME = "scores.csv"
COLUMNS = ("dictionary", "role", "site", "score", "value", "low", "high", "floor", "ceiling", "normalised", "n", "id")


def write_scores_csv(report: Report, folder: Path) -> Path:
    """Writes scores.csv into the report's folder."""
    atomic_write_text(folder / CSV_NAME, scores_csv(report))
    return folder / CSV_NAME


def scores_csv(report: Report) -> str:
    """A row per dictionary and score: SAEs first, then controls. An empty cell is a number that does not exist."""
    sites = {sae.name: sae.site for sae in report.saes}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows: list[NamedScore | ControlScore] = [*report.scores, *report.controls]
    for named in rows:
        score = named.score
        numbers = (score.value, score.low, score.high, score.floor, score.ceiling, score.normalised())
        role = named.role if isinstance(named, ControlScore) else "sae"
        cells = ["" if number is None or not isfinite(number) else repr(float(number)) for number in numbers]
        writer.writerow([named.sae, role, sites.get(named.sae) or "", named.name, *cells, score.n, score.id])
    return text.getvalue()
