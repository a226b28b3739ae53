"""The report of an experiment: scores of models, sparsities or methods that need not be SAEs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sae_toolkit import config as configs
from sae_toolkit.metrics.ladder import Ladder
from sae_toolkit.metrics.score import Score
from sae_toolkit.report.build import control_scores, name_and_claim, reported_saes
from sae_toolkit.report.expectation import ControlScore, NamedScore
from sae_toolkit.report.headlines import Headline
from sae_toolkit.report.provenance import collect_provenance
from sae_toolkit.report.report import FigurePanel, Report
from sae_toolkit.report.score_bars import score_bars_panel
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.saes.base import AbstractSAE


def build_experiment_report(
    config: Any,
    run: RunFolder,
    scores: Sequence[NamedScore],
    figures: Sequence[FigurePanel],
    *,
    description: Mapping[str, Any],
    headlines: Sequence[Headline] = (),
    controls: Sequence[ControlScore] = (),
    saes: Mapping[str, AbstractSAE] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    ladder: Ladder | None = None,
) -> Report:
    """Name and claim are those of the file that defines the class of `config`.

    `description`: the data, for the provenance; `headlines`: the scores that get a card; `saes`: those that the run
    trained and keeps, if any; `history`: log records, those of the run's own training where none are given; `ladder`:
    controls that get rows and bars beside the scores. Every other name in `scores` is a row of its own, in the order of
    first appearance, and an `Expectation` finds it by it.
    """
    recipe, claim = name_and_claim(config)
    kept = saes or {}
    if ladder is not None:
        controls = [*controls, *control_scores(ladder)]
        figures = [score_bars_panel(scores, controls), *figures]
    return Report(
        recipe=recipe,
        claim=claim,
        config=configs.to_json(config),
        provenance=collect_provenance(description, configs.seed_of(config)),
        saes=reported_saes(run, kept, {}),
        scores=scores,
        controls=controls,
        history=history or run.memory.records,
        figures=figures,
        subjects=list(dict.fromkeys(score.sae for score in scores if score.sae not in kept)),
        headlines=headlines,
    )


def scores_of(
    subject: str, values: Mapping[str, Score | int | float], *, n: int = 1, version: int = 1
) -> list[NamedScore]:
    """Rows of a report: a `Score` as it is, a bare number as the score `name/v<version>` over `n` units."""
    return [
        NamedScore(
            name=name,
            sae=subject,
            score=value if isinstance(value, Score) else Score(value=float(value), n=n, id=f"{name}/v{version}"),
        )
        for name, value in values.items()
    ]


def with_saes_of_parts(report: Report, parts: Mapping[str, tuple[RunFolder, Mapping[str, AbstractSAE]]]) -> Report:
    """The report of a run that trained SAEs in several parts (`RunFolder.part`), with all of them in it.

    Keys of `parts` are what the SAEs of a part are called by beyond their own name: "TopK" becomes "TopK p=0.1" with
    the key "p=0.1".
    """
    kept = [
        replace(reported, name=f"{reported.name} {key}")
        for key, (run, saes) in parts.items()
        for reported in reported_saes(run, saes, {})
    ]
    names = {reported.name for reported in kept}
    return replace(report, saes=kept, subjects=[name for name in report.subjects if name not in names])
