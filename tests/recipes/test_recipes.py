"""Every shipped recipe keeps its promise in its smallest run, through the command line and in a folder of its own."""

import json
from pathlib import Path

import pytest

from sae_toolkit import load, weights_sha256
from sae_toolkit.cli import main
from sae_toolkit.recipe import load_recipe, recipe_names

REQUIRED = {"recipe", "config", "provenance", "saes", "scores", "expected"}
SCORE_KEYS = {"name", "sae", "value", "low", "high", "floor", "ceiling", "n", "id"}


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_smoke(name: str, tmp_path: Path) -> None:
    assert main(["verify", name, "--smoke", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) >= REQUIRED
    assert report["recipe"] == name
    assert report["expected"]
    assert all(set(score) == SCORE_KEYS for score in report["scores"])
    names = {score["name"] for score in report["scores"]}
    assert names >= {"explained_variance", "l0", "dead_fraction"}
    for sae in report["saes"]:
        assert weights_sha256(load(tmp_path / sae["path"])) == sae["weights_sha256"]
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert len(page) < 5_000_000


@pytest.mark.parametrize("name", recipe_names())
def test_the_docstring_states_claim_and_command(name: str) -> None:
    recipe = load_recipe(name)
    assert len(recipe.claim) > 40
    assert f"sae-toolkit run {name}" in (recipe.module.__doc__ or "")
