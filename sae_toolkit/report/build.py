"""From trained SAEs and their scores to a report: which figures are drawn, and what the controls are called."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sae_toolkit import config as configs
from sae_toolkit.activations.place import Place
from sae_toolkit.activations.source import ActivationSource, KnownFeatures, Site
from sae_toolkit.metrics.controls import FLOOR, random_directions
from sae_toolkit.metrics.evaluate import evaluate
from sae_toolkit.metrics.ladder import Ladder, saes_by_place
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import Sparsity
from sae_toolkit.report.cosine_histogram import cosine_histogram_panel
from sae_toolkit.report.curves import training_curves_panel
from sae_toolkit.report.density import density_panel
from sae_toolkit.report.expectation import ControlScore, NamedScore, Role
from sae_toolkit.report.geometry import geometry_panel
from sae_toolkit.report.match_matrix import match_matrix_panel
from sae_toolkit.report.provenance import collect_provenance
from sae_toolkit.report.report import FigurePanel, Report, ReportedSAE
from sae_toolkit.report.score_bars import score_bars_panel
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE
from sae_toolkit.saes.weights_hash import weights_sha256

FIGURE_SAMPLES = 20_000
"""Held-out samples behind the density histogram, or all there are."""


def build_report(
    config: Any,
    run: RunFolder,
    saes: Mapping[str, AbstractSAE],
    source: ActivationSource,
    ladder: Ladder,
    *,
    sites: Mapping[str, Site] | None = None,
    targets: Mapping[str, str] | None = None,
    excluded: Mapping[str, int] | None = None,
) -> Report:
    """The report of a recipe's run: name and claim are those of the file that defines the class of `config`.

    `sites` and `targets` as they were given to `train`; `excluded` is what the source left out of training
    (`TrainResult.excluded`). With several seeds the ladder holds their means; figures show the SAEs given here.
    """
    recipe, claim = name_and_claim(config)
    scores = [NamedScore(name=n, sae=sae, score=s) for sae, found in ladder.saes.items() for n, s in found.items()]
    scores += training_l0(run, saes)
    controls = control_scores(ladder)
    left_out = {} if excluded is None else {"training": dict(excluded)}
    placed = saes_by_place(saes, source, sites, targets)
    site_read = {name: str(place) for place, there in placed.items() for name in there if len(source.sites) > 1}
    return Report(
        recipe=recipe,
        claim=claim,
        config=configs.to_json(config),
        provenance=collect_provenance(source.describe(), configs.seed_of(config)),
        saes=reported_saes(run, saes, site_read),
        scores=scores,
        controls=controls,
        history=run.memory.records,
        figures=[
            score_bars_panel(scores, controls),
            *sae_figures(saes, source, placed, history=run.memory.records),
        ],
        excluded=left_out | {"evaluation": dict(ladder.excluded)},
    )


def name_and_claim(config: Any) -> tuple[str, str]:
    """Of the recipe whose file defines the class of `config`: its name, and the first paragraph of its docstring."""
    recipe = sys.modules[type(config).__module__]
    name = Path(recipe.__file__ or type(config).__module__).stem
    return name, (recipe.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def reported_saes(run: RunFolder, saes: Mapping[str, AbstractSAE], site_read: Mapping[str, str]) -> list[ReportedSAE]:
    """Where the run keeps each SAE, and what it reads."""
    return [
        ReportedSAE(
            name=name,
            variant=type(sae).__name__,
            path=run.relative(run.sae_path(name)).as_posix(),
            weights_sha256=weights_sha256(sae),
            site=site_read.get(name),
        )
        for name, sae in saes.items()
    ]


def sae_figures(
    saes: Mapping[str, AbstractSAE],
    source: ActivationSource,
    placed: Mapping[Place, Mapping[str, AbstractSAE]],
    *,
    history: Sequence[Mapping[str, Any]],
) -> list[FigurePanel]:
    """What is drawn from the SAEs themselves, by the site they read, and from the training log."""
    firing: dict[str, Sparsity] = {}
    for place, there in placed.items():
        firing |= firing_of(there, place.seen(source))
    rates = {name: firing[name].firing_rates() for name in saes}
    figures: list[FigurePanel] = []
    if isinstance(source, KnownFeatures):
        figures += truth_figures(saes, source, {name: rate > 0 for name, rate in rates.items()})
    figures.append(density_panel(rates, n_samples=min(metric.n_samples for metric in firing.values())))
    if history:
        figures.append(training_curves_panel(history))
    return figures


def control_scores(ladder: Ladder) -> list[ControlScore]:
    """Each control's scores with its part: chance, an opponent that tries, or perfect knowledge."""
    rows: list[ControlScore] = []
    for key, found in ladder.controls.items():
        kind, _, name = key.partition("/")
        name, at, site = name.partition(" at ")
        shown = name if name.endswith(" with OMP") else name.replace("_", " ")  # such a name is that of an SAE
        role: Role = "ceiling" if kind == "ceiling" else "floor" if key.startswith(FLOOR) else "opponent"
        rows += [
            ControlScore(name=score_name, sae=shown + at + site, score=score, role=role)
            for score_name, score in found.items()
        ]
    return rows


def truth_figures(
    saes: Mapping[str, AbstractSAE], source: KnownFeatures, alive: Mapping[str, torch.Tensor]
) -> list[FigurePanel]:
    """What can only be drawn where the true directions are known."""
    decoders = {name: sae.decoder_directions().detach().cpu() for name, sae in saes.items()}
    matchings = {name: match_latents(source.directions, decoder, alive[name]) for name, decoder in decoders.items()}
    width = max(len(decoder) for decoder in decoders.values())
    chance = source.directions @ random_directions(width, source.d_in, seed=0).T
    figures = [
        cosine_histogram_panel(
            {name: matching.best_for_feature for name, matching in matchings.items()}, floor=chance.amax(1)
        )
    ]
    figures.append(match_matrix_panel(source.directions, decoders, matchings))
    living = {name: decoder[alive[name]] for name, decoder in decoders.items()}
    return [*figures, geometry_panel(source.directions, living)]


def firing_of(saes: Mapping[str, AbstractSAE], source: ActivationSource) -> dict[str, Sparsity]:
    """How often each latent of each SAE fires on held-out samples, from one pass over them."""
    built: list[Sparsity] = []

    def fresh() -> list[Metric]:
        built.append(Sparsity())
        return [built[-1]]

    evaluate(dict[str, AbstractDictionary](saes), source, n_samples=FIGURE_SAMPLES, metrics=fresh)
    return dict(zip(saes, built, strict=True))


def training_l0(run: RunFolder, saes: Mapping[str, AbstractSAE]) -> list[NamedScore]:
    """Active latents in the last training batch, to be compared with `l0`, which is that of the inference form."""
    if not run.memory.records:
        return []
    last = run.memory.records[-1]
    batch_size = last["samples"] // last["step"]
    return [
        NamedScore(
            name="l0_training", sae=name, score=Score(value=last["saes"][name]["l0"], n=batch_size, id="l0_training/v1")
        )
        for name in saes
    ]
