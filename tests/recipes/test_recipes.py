"""Every shipped recipe keeps its promise in its smallest run, through the command line and in a folder of its own."""

import ast
import inspect
import json
from pathlib import Path

import pytest

from sae_toolkit import load, weights_sha256
from sae_toolkit.cli import main
from sae_toolkit.plan.sizes import size_of, sizes_of
from sae_toolkit.recipe import load_recipe, recipe_names
from sae_toolkit.run_folder import RunFolder

REQUIRED = {"recipe", "config", "provenance", "saes", "scores", "expected"}
TRAINING = [name for name in recipe_names() if load_recipe(name).trains_saes]
assert len(TRAINING) >= 9, f"only {TRAINING} train SAEs"
SCORE_KEYS = {"name", "sae", "value", "low", "high", "floor", "ceiling", "n", "id"}


@pytest.mark.slow
@pytest.mark.usefixtures("few_control_samples")
@pytest.mark.parametrize("name", recipe_names())
def test_smoke(name: str, tmp_path: Path) -> None:
    assert main(["verify", name, "--smoke", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) >= REQUIRED
    assert report["recipe"] == name
    assert report["expected"]
    assert all(set(score) == SCORE_KEYS for score in report["scores"])
    if name in TRAINING:
        assert {score["name"] for score in report["scores"]} >= {"explained_variance", "l0", "dead_fraction"}
    for sae in report["saes"]:
        assert weights_sha256(load(tmp_path / sae["path"])) == sae["weights_sha256"]
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert len(page) < 5_000_000


@pytest.mark.parametrize("name", TRAINING)
def test_it_builds_its_parts_as_the_plan_needs_them(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    config = recipe.config(smoke=True)
    source = recipe.module.make_source(config, RunFolder(tmp_path))
    saes = recipe.module.make_saes(config, source)
    widths = [source.sites[key] if len(source.sites) > 1 else source.d_in for key in saes]
    assert [sae.d_in for sae in saes.values()] == widths
    sized = sizes_of(lambda: recipe.module.make_saes(config, source))
    built = {key: size_of(sae, str(sae.W_enc.device), sized[key].k) for key, sae in saes.items()}
    assert sized == built


@pytest.mark.parametrize("name", TRAINING)
def test_its_main_uses_them(name: str) -> None:
    tree = ast.parse(inspect.getsource(load_recipe(name).module.main))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called >= {"make_source", "make_saes"}


@pytest.mark.parametrize("name", recipe_names())
def test_the_docstring_states_claim_and_command(name: str) -> None:
    recipe = load_recipe(name)
    assert len(recipe.claim) > 40
    assert f"sae-toolkit run {name}" in (recipe.module.__doc__ or "")
