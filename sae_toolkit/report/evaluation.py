"""The report of saved SAEs that were scored after their training, on one source or on several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sae_toolkit import config as configs
from sae_toolkit.activations.place import Place, sites_and_targets
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.metrics.ladder import Ladder, saes_by_place
from sae_toolkit.origin import Origin
from sae_toolkit.report.build import control_scores, sae_figures
from sae_toolkit.report.expectation import ControlScore, NamedScore
from sae_toolkit.report.pareto import pareto_panel
from sae_toolkit.report.provenance import collect_provenance
from sae_toolkit.report.report import FigurePanel, Report, ReportedSAE
from sae_toolkit.report.score_bars import score_bars_panel
from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.saes.weights_hash import weights_sha256


@dataclass(frozen=True)
class Evaluated:
    """The SAEs of one source with their scores."""

    label: str
    origin: Origin
    folders: Mapping[str, Path]
    saes: Mapping[str, AbstractSAE]
    source: ActivationSource
    places: Mapping[str, Place]
    """What each SAE reads and predicts, where the source has several sites."""
    ladder: Ladder
    changed: Mapping[str, Sequence[str]]
    """By SAE, where the source differs from that of its training."""

    def placed(self) -> dict[Place, dict[str, AbstractSAE]]:
        """The SAEs by what they read and predict."""
        return saes_by_place(self.saes, self.source, *sites_and_targets(self.places))

    def where(self, name: str, *, alone: bool) -> str | None:
        """What tells the controls of an SAE from those of others: its site, its source, both or nothing."""
        place = self.places.get(name)
        if alone:
            return None if place is None else str(place)
        return self.label if place is None else f"{place} of {self.label}"


def build_evaluation(evaluated: Sequence[Evaluated]) -> Report:
    """One table for all; controls are named after their source where there are several."""
    alone = len(evaluated) == 1
    scores = [
        NamedScore(name=name, sae=sae, score=score)
        for group in evaluated
        for sae, found in group.ladder.saes.items()
        for name, score in found.items()
    ]
    controls = [control for group in evaluated for control in controls_of(group, alone=alone)]
    names = [name for group in evaluated for name in group.saes]
    labels = ", ".join(group.label for group in evaluated)
    return Report(
        recipe="evaluate",
        claim=f"{len(names)} saved SAE{'s' if len(names) > 1 else ''} and their controls on held-out data of {labels}.",
        config={group.label: configs.to_json(group.origin.config) for group in evaluated},
        provenance=collect_provenance(
            {group.label: group.source.describe() for group in evaluated}, configs.seed_of(evaluated[0].origin.config)
        ),
        saes=[reported for group in evaluated for reported in reported_saes(group, alone=alone)],
        scores=scores,
        controls=controls,
        figures=figures_of(evaluated, scores, controls),
        excluded={"evaluation" if alone else group.label: dict(group.ladder.excluded) for group in evaluated},
    )


def controls_of(group: Evaluated, *, alone: bool) -> list[ControlScore]:
    """The controls of one source, named after it where there are others."""
    found = control_scores(group.ladder)
    if alone:
        return found
    joint = " of " if len(set(group.places.values())) > 1 else " at "
    return [replace(control, sae=f"{control.sae}{joint}{group.label}") for control in found]


def reported_saes(group: Evaluated, *, alone: bool) -> list[ReportedSAE]:
    """Where each SAE lies, and what it reads."""
    return [
        ReportedSAE(
            name=name,
            variant=type(sae).__name__,
            path=group.folders[name].as_posix(),
            weights_sha256=weights_sha256(sae),
            site=group.where(name, alone=alone),
        )
        for name, sae in group.saes.items()
    ]


def figures_of(
    evaluated: Sequence[Evaluated], scores: Sequence[NamedScore], controls: Sequence[ControlScore]
) -> list[FigurePanel]:
    """Scores between floor and ceiling, sparsity against quality, then what is drawn from the SAEs of each source."""
    figures = [score_bars_panel(scores, controls)]
    if (pareto := pareto_panel(scores, controls)) is not None:
        figures.append(pareto)
    for group in evaluated:
        drawn = sae_figures(group.saes, group.source, group.placed(), history=())
        title = "" if len(evaluated) == 1 else f" ({group.label})"
        figures += [replace(figure, title=figure.title + title) for figure in drawn]
    return figures


def notes(evaluated: Sequence[Evaluated]) -> list[str]:
    """What a reader of the table should know: SAEs scored on other data than they learned from."""
    return [
        f"{name} was trained on another source: {'; '.join(changed[:3])}"
        + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
        for group in evaluated
        for name, changed in group.changed.items()
        if changed
    ]
