"""`sae-toolkit evaluate`: saved SAEs and controls in one table, on what they were trained on or on a recipe's data."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_toolkit import config as configs
from sae_toolkit.recipe import add_data_options
from sae_toolkit.summary import print_summary

if TYPE_CHECKING:
    from sae_toolkit.activations import ActivationSource
    from sae_toolkit.origin import Origin, SavedSAE
    from sae_toolkit.report.evaluation import Evaluated

SAMPLES = 20_000
LOSS_TOKENS = 8192


def add_parser(commands: Any) -> None:
    """`evaluate` and its options."""
    parser = commands.add_parser("evaluate", help="score saved SAEs and their controls, in one table")
    parser.add_argument("checkpoints", nargs="+", type=Path, help="folders of SAEs, of checkpoints or of whole runs")
    parser.add_argument("--output", required=True, type=Path, help="folder for report.html, report.json, scores.csv")
    add_data_options(parser, "score")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"held-out samples; {SAMPLES:,} if not given")
    parser.add_argument(
        "--loss_tokens", type=int, default=LOSS_TOKENS, help=f"tokens behind a language model's losses; {LOSS_TOKENS:,}"
    )
    parser.add_argument("--full", action="store_true", help="ask the metrics, too, that cost more than encoding does")
    parser.add_argument("--leave_out", default="", help="floors to do without, such as floor/ica,floor/kmeans")
    parser.add_argument("--controls", type=Path, help="folder of scored controls; OUTPUT/controls if not given")
    parser.set_defaults(act=evaluate_checkpoints)


def evaluate_checkpoints(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Scores them, writes the report and says what stands in it."""
    from sae_toolkit.loggers import say_on_stderr  # noqa: PLC0415 - slow to import, --help need not wait
    from sae_toolkit.origin import labels_of, saved_saes  # noqa: PLC0415
    from sae_toolkit.report.evaluation import build_evaluation, notes  # noqa: PLC0415
    from sae_toolkit.report.score_table import write_scores_csv  # noqa: PLC0415

    if options.samples < 1:
        raise ValueError(f"evaluate: --samples {options.samples} asked, but at least 1 sample is needed.")
    groups = by_origin(saved_saes(options.checkpoints), options, rest)
    labels = labels_of([origin for origin, _ in groups])
    with tempfile.TemporaryDirectory() as temporary:
        evaluated = []
        for i, (origin, saes) in enumerate(groups):
            say_on_stderr(f"{labels[i]}: building its source")
            source = origin.source(Path(temporary) / str(i))
            evaluated.append(score_group(labels[i], origin, saes, source, options))
        report = build_evaluation(evaluated)  # draws from the sources, which may lie in the temporary folder
    report.write(options.output)
    write_scores_csv(report, options.output)
    print_summary(report)
    for line in notes(evaluated):
        print(f"note: {line}")
    print(f"report: {options.output / 'report.html'}")
    return 0


def by_origin(
    saes: Sequence["SavedSAE"], options: argparse.Namespace, rest: Sequence[str]
) -> list[tuple["Origin", list["SavedSAE"]]]:
    """The SAEs of each source: the recipe that was asked for, or what each of them was trained on."""
    from sae_toolkit.origin import asked_origin, origin_of  # noqa: PLC0415

    asked = asked_origin("evaluate", options, rest)
    if asked is not None:
        return [(asked, list(saes))]
    groups: list[tuple[Origin, list[SavedSAE]]] = []
    for sae in saes:
        origin = origin_of(sae)
        same = [found for known, found in groups if known.is_same(origin)]
        if same:
            same[0].append(sae)
        else:
            groups.append((origin, [sae]))
    return groups


def score_group(
    label: str, origin: "Origin", saved: Sequence["SavedSAE"], source: "ActivationSource", options: argparse.Namespace
) -> "Evaluated":
    """The ladder of the SAEs of one source."""
    from sae_toolkit.activations.place import sites_and_targets  # noqa: PLC0415
    from sae_toolkit.checkpoint import load  # noqa: PLC0415
    from sae_toolkit.loggers import say_on_stderr  # noqa: PLC0415
    from sae_toolkit.metrics import ControlStore, default_metrics, full_metrics, score_with_controls  # noqa: PLC0415
    from sae_toolkit.origin import differences_from_training  # noqa: PLC0415
    from sae_toolkit.report.evaluation import Evaluated  # noqa: PLC0415

    saes = {sae.name: load(sae.folder) for sae in saved}
    places = {sae.name: sae.place for sae in saved if sae.place is not None and len(source.sites) > 1}
    sites, targets = sites_and_targets(places)
    asked_out = tuple(name for name in options.leave_out.split(",") if name)
    ladder = score_with_controls(
        saes,
        source,
        n_samples=options.samples,
        seed=configs.seed_of(origin.config),
        leave_out=(*origin.recipe.leave_out, *asked_out),
        sites=sites,
        targets=targets,
        loss_tokens=options.loss_tokens,
        metrics=full_metrics if options.full else default_metrics,
        store=ControlStore(options.controls or options.output / "controls"),
        say=lambda text: say_on_stderr(f"{label}: {text}"),
    )
    changed = {sae.name: differences_from_training(sae, source) for sae in saved}
    return Evaluated(label, origin, {sae.name: sae.folder for sae in saved}, saes, source, places, ladder, changed)
