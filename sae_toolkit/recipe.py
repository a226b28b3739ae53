"""Finding, loading and checking recipes: Python files with a claim, configs, what they build, and `main`."""

import argparse
import difflib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sae_toolkit.config import field_values, override, seed_of, with_seed

PARTS = ("Config", "SMOKE", "EXPECTED", "SMOKE_EXPECTED", "main")
"""What every recipe defines."""
SAE_PARTS = ("make_source", "make_saes")
"""What a recipe that trains SAEs defines as well; its `main` uses both, and so does `sae-toolkit plan`."""
PACKAGED = Path(__file__).parent / "recipes"
"""Inside an installed wheel."""
CHECKOUT = Path(__file__).parent.parent / "recipes"
"""Beside the package in a source checkout."""


@dataclass(frozen=True)
class Recipe:
    """One loaded recipe."""

    name: str
    path: Path
    module: ModuleType

    @property
    def claim(self) -> str:
        """The first paragraph of its docstring."""
        return " ".join((self.module.__doc__ or "").strip().split("\n\n")[0].split())

    def config(self, *, smoke: bool) -> Any:
        return self.module.SMOKE if smoke else self.module.Config()

    def asked_config(self, arguments: Sequence[str], *, smoke: bool = False, seed: int | None = None) -> Any:
        """Its config, changed by `--any.field value` arguments, then by a seed."""
        config = override(self.config(smoke=smoke), field_values(arguments))
        return config if seed is None else with_seed(config, seed)

    @property
    def trains_saes(self) -> bool:
        """Whether it trains SAEs; a laboratory experiment need not."""
        return SAE_PARTS[0] in vars(self.module)

    def refuse_without_saes(self, command: str) -> None:
        """A ValueError where a command needs SAEs and there are none."""
        if not self.trains_saes:
            raise ValueError(f"{command}: {self.name} trains no SAE on activations of its own. Just run it.")

    @property
    def leave_out(self) -> tuple[str, ...]:
        """Floors that `main` does without: the recipe's `LEAVE_OUT`, where it defines one."""
        return tuple(vars(self.module).get("LEAVE_OUT", ()))

    def expectations(self, config: Any) -> tuple[Any, ...]:
        """The published expected numbers for this config; they hold for any seed, and for no other change."""
        for published, expected in (
            (self.module.Config(), self.module.EXPECTED),
            (self.module.SMOKE, self.module.SMOKE_EXPECTED),
        ):
            if with_seed(config, seed_of(published)) == published:
                return tuple(expected)
        return ()


def add_data_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Options of a command on saved SAEs that may name a recipe for its data; `what` the command does with them."""
    parser.add_argument("--recipe", help=f"{what} on this recipe's data (--any.field VALUE changes its config) instead")
    parser.add_argument("--smoke", action="store_true", help="with --recipe: its smallest config")
    parser.add_argument("--seed", type=int, help="with --recipe: its seed")
    parser.add_argument("--offline", action="store_true", help="no network: models and texts are on this machine")


def recipe_folder() -> Path:
    """Where the shipped recipes are."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def recipe_names() -> list[str]:
    """Every shipped recipe, by file name."""
    return sorted(path.stem for path in recipe_folder().glob("*.py") if path.stem != "__init__")


def load_recipe(name_or_file: str) -> Recipe:
    """A shipped recipe by name, or any recipe by the path of its file."""
    is_file = name_or_file.endswith(".py")
    path = Path(name_or_file) if is_file else recipe_folder() / f"{name_or_file}.py"
    if not path.is_file():
        names = recipe_names()
        nearest = difflib.get_close_matches(name_or_file, names, n=1, cutoff=0.0)
        hint = f" Did you mean {nearest[0]}?" if nearest and not is_file else ""
        raise ValueError(
            f"no recipe {name_or_file!r}.{hint} Recipes: {', '.join(names)}; or give a path ending in .py."
        )
    spec = importlib.util.spec_from_file_location(f"sae_toolkit_recipe_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    here = vars(module)
    needed = PARTS + (SAE_PARTS if any(part in here for part in SAE_PARTS) else ())
    missing = [part for part in needed if part not in here]
    if missing:
        raise ValueError(f"{path} is no recipe: it lacks {', '.join(missing)}. Copy one with `sae-toolkit copy`.")
    return Recipe(path.stem, path, module)
