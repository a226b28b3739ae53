"""`sae-toolkit dashboard`: a page on every latent of a saved SAE, on what it was trained on or on a recipe's data."""

import argparse
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_toolkit.recipe import add_data_options

if TYPE_CHECKING:
    from sae_toolkit.analysis import DictionaryRecord
    from sae_toolkit.origin import SavedSAE

TOKENS = 100_000
LIMIT = 200
FORMATS = ("neuronpedia", "saedashboard")


def add_parser(commands: Any) -> None:
    """`dashboard` and its options."""
    parser = commands.add_parser("dashboard", help="a page on every latent of a saved SAE")
    parser.add_argument("checkpoint", type=Path, help="folder of one SAE, or of a run that trained one")
    parser.add_argument(
        "--output",
        type=Path,
        help="FILE.html, or a folder for thousands of latents; beside its checkpoints if not given",
    )
    parser.add_argument(
        "--tokens", type=int, default=TOKENS, help=f"held-out tokens (samples) to describe them on; {TOKENS:,}"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--latents", help="which, such as 0,5,7-20; or all")
    which.add_argument("--limit", type=int, default=LIMIT, help=f"as many, from the first on; {LIMIT}")
    add_data_options(parser, "describe them")
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    parser.add_argument("--export", type=Path, metavar="FILE.json", help="write the latents for another tool, too")
    parser.add_argument("--format", choices=FORMATS, help="whose form the export has")
    parser.add_argument("--export_model", help="in the export: the other tool's name of the model, such as gpt2-small")
    parser.add_argument("--export_layer", type=int, help="in the export: number of the layer, from 0")
    parser.add_argument("--export_set", help="in the export: the name of the set of SAEs, such as res-jb")
    parser.set_defaults(act=show_latents)


def show_latents(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Describes the latents, writes page and export, and says where they are."""
    from sae_toolkit.origin import saved_saes  # noqa: PLC0415 - slow to import, --help need not wait

    if options.tokens < 1:
        raise ValueError(f"dashboard: --tokens {options.tokens} asked, but at least 1 token is needed.")
    if (options.export is None) != (options.format is None):
        raise ValueError(f"dashboard: --export FILE.json and --format ({' or '.join(FORMATS)}) belong together.")
    saved = only_one(saved_saes([options.checkpoint]))
    record = describe(saved, options, rest)
    page = write_page(record, options.output or default_page(saved))
    print(f"dashboard: {page}")
    if options.export is not None:
        print(f"export: {export(record, options)}")
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    return 0


def only_one(saes: Sequence["SavedSAE"]) -> "SavedSAE":
    """The SAE; a ValueError that lists them where there are several."""
    if len(saes) > 1:
        folders = "\n  ".join(str(sae.folder) for sae in saes)
        raise ValueError(
            f"dashboard: {len(saes)} SAEs found, but a page shows one. Give the folder of one:\n  {folders}"
        )
    return saes[0]


def describe(saved: "SavedSAE", options: argparse.Namespace, rest: Sequence[str]) -> "DictionaryRecord":
    """The record of the latents that were asked for."""
    from sae_toolkit import analysis  # noqa: PLC0415
    from sae_toolkit import config as configs  # noqa: PLC0415
    from sae_toolkit.checkpoint import load  # noqa: PLC0415
    from sae_toolkit.loggers import say_on_stderr  # noqa: PLC0415
    from sae_toolkit.origin import asked_origin, origin_of  # noqa: PLC0415

    sae = load(saved.folder)
    latents = chosen_latents(options, sae.d_sae)
    origin = asked_origin("dashboard", options, rest) or origin_of(saved)
    with tempfile.TemporaryDirectory() as temporary:
        say_on_stderr(f"{origin.recipe.name}: building its source")
        whole = origin.source(Path(temporary))
        source = whole if saved.place is None else saved.place.seen(whole)
        say_on_stderr(f"{saved.name}: describing {len(latents):,} latents on {options.tokens:,} samples")
        where = origin.recipe.name if saved.place is None else str(saved.place)
        return analysis.describe_latents(
            sae,
            source,
            n_tokens=options.tokens,
            latents=latents,
            seed=configs.seed_of(origin.config),
            title=f"{saved.name} ({type(sae).__name__}) on {where}",
        )


def chosen_latents(options: argparse.Namespace, d_sae: int) -> list[int]:
    """Numbers of latents, in order and each once; ValueErrors name what is no latent of this SAE."""
    if options.latents is None:
        if options.limit < 1:
            raise ValueError(f"dashboard: --limit {options.limit} asked, but at least 1 latent is needed.")
        return list(range(min(options.limit, d_sae)))
    if options.latents == "all":
        return list(range(d_sae))
    chosen: set[int] = set()
    for part in options.latents.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"dashboard: --latents {options.latents}: {part!r} is no number and no range like 7-20.")
        low, high = int(first), int(last or first)
        if not low <= high < d_sae:
            raise ValueError(
                f"dashboard: --latents {options.latents}: {part!r} asked, but this SAE has latents 0 to {d_sae - 1}."
            )
        chosen |= set(range(low, high + 1))
    return sorted(chosen)


def default_page(saved: "SavedSAE") -> Path:
    """Beside the checkpoints of the SAE's run; elsewhere beside its folder, which must hold nothing else."""
    folder = saved.folder.resolve()
    runs = [above.parent for above in folder.parents if above.name == "checkpoints"]
    return (runs[0] if runs else folder.parent) / f"dashboard_{folder.name}.html"


def write_page(record: "DictionaryRecord", path: Path) -> Path:
    """One file where the path ends in .html, a folder elsewhere; returns the page to open."""
    from sae_toolkit.loggers import say_on_stderr  # noqa: PLC0415
    from sae_toolkit.report.dashboard import MANY_LATENTS, write_dashboard, write_dashboard_folder  # noqa: PLC0415

    if path.suffix != ".html":
        return write_dashboard_folder(record, path)
    if len(record.latents) > MANY_LATENTS:
        folder = path.with_suffix("")
        say_on_stderr(f"{len(record.latents):,} latents in one file open slowly; --output {folder} makes a folder")
    return write_dashboard(record, path)


def export(record: "DictionaryRecord", options: argparse.Namespace) -> Path:
    """Writes the record in another tool's form."""
    from sae_toolkit.report.neuronpedia_json import write_neuronpedia_json  # noqa: PLC0415
    from sae_toolkit.report.saedashboard_json import ExportNames, write_saedashboard_json  # noqa: PLC0415

    names = ExportNames(model_id=options.export_model, layer=options.export_layer, sae_set=options.export_set)
    write = write_neuronpedia_json if options.format == "neuronpedia" else write_saedashboard_json
    return write(record, options.export, names)
