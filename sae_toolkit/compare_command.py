"""`sae-toolkit compare`: which latents several saved SAEs share, next to what random dictionaries share."""

import argparse
import csv
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_toolkit.atomic_write import atomic_write_text
from sae_toolkit.recipe import Recipe

if TYPE_CHECKING:
    from sae_toolkit.activations.source import ActivationSource
    from sae_toolkit.metrics.stability import Stability
    from sae_toolkit.saes.base import AbstractSAE

JSON_NAME, SCORES_NAME, LATENTS_NAME = "compare.json", "scores.csv", "latents.csv"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The SAEs, and where the samples come from that decide which of their latents are alive."""
    parser.add_argument("saes", nargs="+", help="folders of saved SAEs, or hub ids")
    parser.add_argument("--recipe", help="decide alive latents on what this recipe's source holds out")
    parser.add_argument("--smoke", action="store_true", help="on the source of its smallest run")
    parser.add_argument("--seed", type=int, help="on the source of this seed")
    parser.add_argument("--offline", action="store_true", help="no network")
    parser.add_argument("--activations", type=Path, help="decide them on the held-out rows of a .npy or .safetensors")
    parser.add_argument("--site", help="the site that the SAEs read, where the source reads several")
    parser.add_argument("--n_samples", type=int, default=20_000, help="held-out samples for that")
    parser.add_argument("--output", type=Path, help=f"folder for {JSON_NAME}, {SCORES_NAME} and {LATENTS_NAME}")


def compare(recipe: Recipe | None, config: Any, options: argparse.Namespace) -> list[str]:
    """The table as lines; writes the files where a folder is given."""
    from sae_toolkit.checkpoint import load  # noqa: PLC0415 - torch is slow to import
    from sae_toolkit.metrics.stability import stability, stability_of  # noqa: PLC0415
    from sae_toolkit.saes.weights_hash import weights_sha256  # noqa: PLC0415

    if recipe is not None and options.activations is not None:
        raise ValueError("compare: both --recipe and --activations given, but alive is decided on one. Leave one out.")
    saes = {name: load(path) for name, path in names_of(options.saes).items()}
    with tempfile.TemporaryDirectory() as temporary:
        source = chosen_source(recipe, config, options, Path(temporary))
        if source is None:
            found = stability({name: sae.decoder_directions() for name, sae in saes.items()})
            decided = "every latent counts as alive; --recipe or --activations would tell which are"
        else:
            found = stability_of(saes, source, n_samples=options.n_samples)
            decided = f"alive: fired in {options.n_samples:,} held-out samples of {type(source).__name__}"
    if options.output is not None:
        paths = names_of(options.saes)
        account = {
            "alive": decided,
            "source": None if source is None else source.describe(),
            "saes": {
                name: {"path": paths[name], "variant": type(sae).__name__, "weights_sha256": weights_sha256(sae)}
                for name, sae in saes.items()
            },
        }
        write(found, account, options.output)
    return [*table(found, saes), decided]


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path that tells it from the others, and the path."""
    if len(set(paths)) < len(paths):
        raise ValueError(f"compare: {' '.join(paths)} given, but each SAE must be another one.")
    for n_parts in range(1, 1 + max(len(Path(path).parts) for path in paths)):
        names = {"/".join(Path(path).parts[-n_parts:]): path for path in paths}
        if len(names) == len(paths):
            return names
    return {path: path for path in paths}


def chosen_source(
    recipe: Recipe | None, config: Any, options: argparse.Namespace, folder: Path
) -> "ActivationSource | None":
    """The source asked for, seen at one site; None where none was asked for."""
    from sae_toolkit.activations import ArraySource  # noqa: PLC0415
    from sae_toolkit.activations.splicing_site import site_of  # noqa: PLC0415
    from sae_toolkit.run_folder import RunFolder  # noqa: PLC0415

    source: ActivationSource | None = None
    if recipe is not None:
        recipe.refuse_without_saes("compare")
        source = recipe.module.make_source(config, RunFolder(folder))
    elif options.activations is not None:
        source = ArraySource.from_file(options.activations)
    if source is None:
        return None
    if len(source.sites) > 1 and options.site is None:
        raise ValueError(f"compare: the source reads {', '.join(source.sites)}. Say with --site which the SAEs read.")
    return site_of(source, options.site)


def table(found: "Stability", saes: Mapping[str, "AbstractSAE"]) -> list[str]:
    """SAEs, scores beside their floors, and pairs."""
    width = max(len(name) for name in (*found.scores, *saes))
    lines = [
        f"{name:<{width}}  {type(sae).__name__}, {found.n_alive[name]:,} of {sae.d_sae:,} latents alive"
        for name, sae in saes.items()
    ]
    lines += ["", f"{'':<{width}}  value  95 % interval     floor  its interval"]
    for name, score in found.scores.items():
        low, high = found.floor_intervals[name]
        ends = f"{'':<15}" if score.low is None or score.high is None else f"{score.low:6.3f} .. {score.high:5.3f}"
        lines.append(f"{name:<{width}}  {score.value:5.3f}  {ends}  {score.floor:6.3f}  {low:6.3f} .. {high:5.3f}")
    lines += ["", *(f"{' ~ '.join(names)}: PW-MCC {pair.pw_mcc:.3f}" for names, pair in found.pairs.items()), ""]
    verdict = "above" if found.above_floor else "not above"
    return [*lines, f"PW-MCC is {verdict} what random dictionaries of these widths reach"]


def write(found: "Stability", account: Mapping[str, Any], folder: Path) -> None:
    """All numbers as JSON; scores, and what there is of every latent, as tables."""
    content = {**account, **found.to_json()}
    atomic_write_text(folder / JSON_NAME, json.dumps(content, indent=1, allow_nan=False) + "\n")
    scores = [
        (name, s.value, s.low, s.high, s.floor, *found.floor_intervals[name], s.n, s.id)
        for name, s in found.scores.items()
    ]
    head = ("score", "value", "low", "high", "floor", "floor_low", "floor_high", "n", "id")
    atomic_write_text(folder / SCORES_NAME, comma_separated(head, scores))
    latents = [
        (name, latent, int(n > 0), value if n > 0 else None, n)
        for name, counts in found.found_in.items()
        for latent, (n, value) in enumerate(zip(counts.tolist(), found.reproducibility[name].tolist(), strict=True))
    ]
    head_of_latents = ("sae", "latent", "alive", "reproducibility", "found_in")
    atomic_write_text(folder / LATENTS_NAME, comma_separated(head_of_latents, latents))


def comma_separated(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """CSV with a head line; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
