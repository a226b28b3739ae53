"""The `sae-toolkit` command: recipes listed, planned, run, verified, copied; SAEs scored, shown; activations stored."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_toolkit import cache_command, compare_command, dashboard_command, evaluate_command
from sae_toolkit import config as configs
from sae_toolkit.recipe import Recipe, load_recipe, recipe_names
from sae_toolkit.summary import print_summary

if TYPE_CHECKING:
    from sae_toolkit.report import Report

TAKES_FIELDS = ("run", "plan", "cache build", "compare", "evaluate", "dashboard")
"""Commands that take `--any.field VALUE` of a recipe's config."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Environment variables with which the Hugging Face libraries stay off the network."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; a wrong input is one line on stderr and exit status 2, never a traceback."""
    options, rest = make_parser().parse_known_args(arguments)
    command = " ".join(filter(None, (options.command, vars(options).get("cache_command"))))
    if rest and command not in TAKES_FIELDS:
        return fail(f"unknown argument {rest[0]!r} for {command}.", 2)
    if vars(options).get("offline"):
        os.environ.update(dict.fromkeys(OFFLINE, "1"))  # those libraries look when they are imported, which is later
    from sae_toolkit.training import TrainingInterrupted  # noqa: PLC0415 - torch is slow to import, --help need not wait

    try:
        status: int = options.act(options, rest)
        return status
    except ValueError as error:
        return fail(str(error), 2)
    except OSError as error:
        return fail(f"{error.strerror or error}: {error.filename or options.__dict__.get('output', '')}", 1)
    except TrainingInterrupted as stop:
        return fail(f"{stop}\nContinue with the same command and --resume.", 128 + stop.signal_number)
    except KeyboardInterrupt:
        return fail("stopped.", 128 + signal.SIGINT)


def fail(message: str, status: int) -> int:
    """An error message and the exit status to return."""
    print(f"sae-toolkit: error: {message}", file=sys.stderr)
    return status


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options; a recipe's own fields are read from what is left over."""
    parser = argparse.ArgumentParser(prog="sae-toolkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the recipes and what each demonstrates")
    listing.set_defaults(act=list_recipes)
    plan = commands.add_parser("plan", help="what a run will take of memory, disk and time, before it is begun")
    add_recipe_options(plan)
    plan.add_argument("--output", type=Path, help="the run's folder-to-be: its disk is looked at, too")
    plan.set_defaults(act=plan_recipe)
    run = commands.add_parser("run", help="run a recipe: --any.field VALUE changes its config")
    add_recipe_options(run)
    run.add_argument("--output", required=True, type=Path, help="folder for report, log and checkpoints")
    run.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the folder")
    run.add_argument("--wandb", metavar="PROJECT", help="log to this Weights & Biases project, too")
    run.set_defaults(act=run_recipe)
    verify = commands.add_parser("verify", help="rerun a recipe and compare with its expected numbers")
    add_recipe_options(verify)
    verify.add_argument("--output", type=Path, help="keep report and checkpoints here")
    verify.set_defaults(act=verify_recipe)
    evaluate_command.add_parser(commands)
    dashboard_command.add_parser(commands)
    cache = commands.add_parser("cache", help="store the activations of a language model, and look at them")
    add_cache_commands(cache)
    compare = commands.add_parser("compare", help="which latents several saved SAEs share")
    compare_command.add_options(compare)
    compare.set_defaults(act=compare_saes)
    copy = commands.add_parser("copy", help="copy a recipe to a file of your own, to be changed and run")
    copy.add_argument("recipe")
    copy.add_argument("file", type=Path)
    copy.set_defaults(act=copy_recipe)
    report = commands.add_parser("report", help="render report.html again from the report.json of a run")
    report.add_argument("folder", type=Path)
    report.set_defaults(act=render_report)
    info = commands.add_parser("info", help="what a checkpoint is and where it comes from")
    info.add_argument("checkpoint")
    info.set_defaults(act=describe_checkpoint)
    return parser


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Which recipe, and what every command that builds something of it understands."""
    parser.add_argument("recipe", help="name of a shipped recipe, or path of a recipe file")
    parser.add_argument("--smoke", action="store_true", help="the smallest honest run")
    parser.add_argument("--seed", type=int, help="seed of world, SAEs and data order")
    parser.add_argument("--offline", action="store_true", help="no network: models and texts are on this machine")


def add_cache_commands(cache: argparse.ArgumentParser) -> None:
    """`cache build`, `cache info` and `cache verify`."""
    kinds = cache.add_subparsers(dest="cache_command", required=True)
    build = kinds.add_parser("build", help="store what a recipe's source reads: --any.field VALUE changes its config")
    add_recipe_options(build)
    cache_command.add_build_options(build)
    build.set_defaults(act=build_cache)
    info = kinds.add_parser("info", help="what a cache is of and how large it is")
    info.set_defaults(act=lambda options, rest: say(cache_command.describe(options.folder)))
    verify = kinds.add_parser("verify", help="read every byte of a cache and compare it with what was written")
    verify.set_defaults(act=lambda options, rest: say(cache_command.verify(options.folder)))
    for parser in (info, verify):
        parser.add_argument("folder", type=Path)


def say(lines: Sequence[str]) -> int:
    """Prints lines; exit status 0."""
    print("\n".join(lines))
    return 0


def list_recipes(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Name and claim of every shipped recipe."""
    names = recipe_names()
    for name in names:
        print(f"{name:<{max(map(len, names))}}  {load_recipe(name).claim}")
    return 0


def asked_config(recipe: Recipe, options: argparse.Namespace, rest: Sequence[str]) -> Any:
    """The recipe's config, changed as the command line says."""
    return recipe.asked_config(rest, smoke=options.smoke, seed=options.seed)


def plan_recipe(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """The table; exit status 2 where the run will not fit."""
    from sae_toolkit.plan import plan_run  # noqa: PLC0415

    recipe = load_recipe(options.recipe)
    with tempfile.TemporaryDirectory() as temporary:
        plan = plan_run(recipe, asked_config(recipe, options, rest), Path(temporary), output=options.output)
    say(plan.lines())
    refusal = plan.refusal()
    return 0 if refusal is None else fail(refusal, 2)


def build_cache(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Stores what the recipe's source reads, and describes the cache."""
    recipe = load_recipe(options.recipe)
    return say(cache_command.build(recipe, asked_config(recipe, options, rest), options))


def compare_saes(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """The stability of saved SAEs; config fields are those of the recipe whose source decides what is alive."""
    if options.recipe is None and rest:
        return fail(f"unknown argument {rest[0]!r} for compare without --recipe.", 2)
    recipe = None if options.recipe is None else load_recipe(options.recipe)
    config = None if recipe is None else asked_config(recipe, options, rest)
    return say(compare_command.compare(recipe, config, options))


def run_recipe(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Runs a recipe with its config changed as asked, and says where the report is."""
    recipe = load_recipe(options.recipe)
    config = asked_config(recipe, options, rest)
    report = carry_out(recipe, config, options.output, resume=options.resume, wandb=options.wandb)
    print_summary(report)
    print(f"report: {options.output / 'report.html'}")
    return 0


def carry_out(recipe: Recipe, config: Any, output: Path, *, resume: bool = False, wandb: str | None = None) -> "Report":
    """Runs `main`, adds the verdict on the expected numbers, and writes the report."""
    from sae_toolkit.loggers import Log, ProgressLog, WandbLog  # noqa: PLC0415
    from sae_toolkit.run_folder import RunFolder  # noqa: PLC0415

    output.mkdir(parents=True, exist_ok=True)
    sent = WandbLog(project=wandb, config=configs.to_json(config), dir=str(output)) if wandb else None
    with ProgressLog(recipe.name) as progress:
        watchers: tuple[Log, ...] = (progress,) if sent is None else (progress, sent)
        report: Report = recipe.module.main(config, RunFolder(output, resume=resume, watchers=watchers))
    if sent is not None:
        sent.finish()
    report = replace(report, expected=recipe.expectations(config))
    report.write(output)
    return report


def verify_recipe(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Exit status 0 only when every expected number is met; each missed one is named."""
    recipe = load_recipe(options.recipe)
    config = asked_config(recipe, options, rest)
    with tempfile.TemporaryDirectory() as temporary:
        report = carry_out(recipe, config, options.output or Path(temporary))
    print_summary(report)
    results = [result for _, result in report.check_expected()]
    for result in results:
        print(f"{'met   ' if result.passed else 'MISSED'}  {result.reason}")
    if not results:
        return fail(f"{recipe.name} publishes no expected numbers, so there is nothing to verify.", 1)
    print(f"{sum(result.passed for result in results)} of {len(results)} expected numbers met")
    return 0 if report.passed else 1


def copy_recipe(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Copies the file; an existing one is never overwritten."""
    recipe = load_recipe(options.recipe)
    if options.file.exists():
        raise ValueError(f"{options.file} exists already; choose another file name.")
    options.file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe.path, options.file)
    print(f"copied {recipe.name} to {options.file}; run it with: sae-toolkit run {options.file} --output DIR")
    return 0


def render_report(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Writes report.html anew from what the run stored."""
    from sae_toolkit.report import read_report  # noqa: PLC0415

    report = read_report(options.folder)
    report.write(options.folder)
    print_summary(report)
    print(f"report: {options.folder / 'report.html'}")
    return 0


def describe_checkpoint(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Variant, config, size and hash of a saved SAE."""
    from sae_toolkit.checkpoint import load  # noqa: PLC0415
    from sae_toolkit.saes import weights_sha256  # noqa: PLC0415

    sae = load(options.checkpoint)
    print(f"{type(sae).__name__}: {sae.d_in} -> {sae.d_sae} latents")
    for name, value in configs.to_json(sae.config).items():
        print(f"  {name} = {value}")
    print(f"  parameters and buffers: {sum(tensor.numel() for tensor in sae.state_dict().values()):,}")
    print(f"  weights SHA-256: {weights_sha256(sae)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
