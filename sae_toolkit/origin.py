"""What a saved SAE was trained on: found beside it, and built again."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_toolkit import config as configs
from sae_toolkit.activations.place import Place
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.checkpoint import read_provenance, saes_below
from sae_toolkit.differences import differences, without_labels
from sae_toolkit.recipe import Recipe, load_recipe
from sae_toolkit.run_folder import RunFolder

REPORT_NAME = "report.json"
LEVELS_ABOVE = 6
"""How far above an SAE's folder the report of its run is looked for (run/part/checkpoints/step/saes/NAME)."""


@dataclass(frozen=True)
class SavedSAE:
    """One SAE on disk, and the account of its training."""

    name: str
    folder: Path
    provenance: Mapping[str, Any]

    @property
    def setup(self) -> Mapping[str, Any]:
        """Configs of the run it comes from; empty for an SAE that was saved by hand."""
        return dict(self.provenance.get("setup", {}))

    @property
    def place(self) -> Place | None:
        """What it reads of its source, and predicts, where its run said so."""
        read = self.setup.get("sites", {}).get(self.folder.name)
        target = self.setup.get("targets", {}).get(self.folder.name)
        return None if read is None else Place(tuple(read) if isinstance(read, list) else read, target)


def saved_saes(paths: list[Path]) -> list[SavedSAE]:
    """Every SAE at or below the given folders, under names that differ."""
    found = []
    for path in paths:
        folders = in_order_of_run(saes_below(path)) if path.is_dir() else []
        if not folders:
            raise ValueError(f"{path} holds no saved SAE. Give the folder of an SAE, of a checkpoint or of a run.")
        found += [(path, folder) for folder in folders]
    names = [folder.name for _, folder in found]
    return [
        SavedSAE(
            folder.name if names.count(folder.name) == 1 else f"{folder.name} of {run_of(path, folder)}",
            folder,
            read_provenance(folder)[1],
        )
        for path, folder in found
    ]


def in_order_of_run(folders: Sequence[Path]) -> list[Path]:
    """SAEs as their run lists them; those of no run, or of several, by path."""
    listed = [read_provenance(folder)[1].get("setup", {}).get("saes", {}) for folder in folders]
    places = {folder: list(names).index(folder.name) for folder, names in zip(folders, listed, strict=True) if names}
    return sorted(folders, key=lambda folder: (folder.parent, places.get(folder, 0), folder))


def run_of(path: Path, folder: Path) -> str:
    """What tells an SAE from others of its name: the folder that was given, or that of its run."""
    report = report_above(folder)
    return str(path) if report is None else report.parent.name


@dataclass(frozen=True)
class Origin:
    """A recipe and the config with which its source is built."""

    recipe: Recipe
    config: Any

    def is_same(self, other: "Origin") -> bool:
        """Whether both give the same source."""
        return self.recipe.path == other.recipe.path and configs.to_json(self.config) == configs.to_json(other.config)

    def source(self, folder: Path) -> ActivationSource:
        """The recipe's source; what it writes (an example model, say) goes into `folder`."""
        source: ActivationSource = self.recipe.module.make_source(self.config, RunFolder(folder))
        return source


def asked_origin(command: str, options: argparse.Namespace, fields: Sequence[str]) -> Origin | None:
    """Of the recipe that a command was told to take its data from (`recipe.add_data_options`); None where it was not.

    `fields` are what the command line says about the recipe's config; without a recipe they are a ValueError.
    """
    if options.recipe is not None:
        recipe = load_recipe(options.recipe)
        recipe.refuse_without_saes(command)
        return Origin(recipe, recipe.asked_config(fields, smoke=options.smoke, seed=options.seed))
    if fields or options.smoke or options.seed is not None:
        raise ValueError(
            f"{command}: --smoke, --seed and fields of a config belong to a recipe. Name it: --recipe NAME."
        )
    return None


def origin_of(sae: SavedSAE) -> Origin:
    """From the report of the run that the SAE lies in, with the seed of its own part of that run."""
    path = report_above(sae.folder)
    if path is None:
        raise ValueError(
            f"{sae.folder} lies in no finished run (no {REPORT_NAME} above it), so what it was trained on is unknown. "
            "Name it: --recipe NAME, with the fields of its config."
        )
    report = json.loads(path.read_text(encoding="utf-8"))
    try:
        recipe = load_recipe(report["recipe"])
    except ValueError as error:
        raise ValueError(f"{path}: {error} If it is a file of your own, name it: --recipe FILE.") from error
    config = configs.from_json(recipe.module.Config, report["config"])
    seed = sae.setup.get("train", {}).get("seed")
    return Origin(recipe, config if seed is None else configs.with_seed(config, seed))


def labels_of(origins: Sequence[Origin]) -> list[str]:
    """The recipes' names, with the fields in which origins of one recipe differ, such as "toy (train.seed 1)"."""
    leaves = [configs.leaves(origin.config) for origin in origins]
    labels = []
    for i, origin in enumerate(origins):
        rivals = [leaves[j] for j, other in enumerate(origins) if j != i and other.recipe.name == origin.recipe.name]
        telling = [name for name, value in leaves[i].items() if any(rival.get(name) != value for rival in rivals)]
        inside = ", ".join(f"{name} {leaves[i][name]}" for name in telling)
        labels.append(origin.recipe.name + (f" ({inside})" if inside else ""))
    return labels


def report_above(folder: Path) -> Path | None:
    """The report of the run that a folder lies in."""
    here = folder.resolve()
    candidates = [parent / REPORT_NAME for parent in [here, *here.parents][: LEVELS_ABOVE + 1]]
    return next((path for path in candidates if path.exists()), None)


def differences_from_training(sae: SavedSAE, source: ActivationSource) -> list[str]:
    """Where this source differs from the one that the SAE learned from; empty where it is the same."""
    trained_on = sae.setup.get("source")
    if trained_on is None:
        return []
    trained_on = trained_on.get("of", trained_on)  # a cache tells the source it was made of
    return differences(without_labels(trained_on), without_labels(source.describe()))
