"""`sae-toolkit dashboard`: which latents of which SAE on which data, and where the page goes."""

import json
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from latent_records import hand_record

from sae_toolkit import TopKSAE, TrainConfig, analysis, save
from sae_toolkit import config as configs
from sae_toolkit.cli import main
from sae_toolkit.recipe import load_recipe
from sae_toolkit.report import Report
from sae_toolkit.run_folder import RunFolder

RECIPE = ["--recipe", "toy_superposition", "--smoke"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    sae = TopKSAE(TopKSAE.Config(d_in=64, d_sae=16, k=2))
    sae.normaliser.fit_(torch.randn(100, 64, generator=torch.Generator().manual_seed(0)))
    save(sae, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks for; the answer is a record worked out by hand."""
    asked: dict[str, Any] = {}

    def describe(sae: Any, source: Any, **options: Any) -> Any:
        asked.update(sae=sae, source=source, **options)
        return hand_record()

    monkeypatch.setattr(analysis, "describe_latents", describe, raising=False)
    return asked


def test_the_page_lies_beside_the_sae(saved: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(saved), *RECIPE, "--world", "B", "--seed", "3"]) == 0
    page = saved.parent / "dashboard_mine.html"
    printed = capsys.readouterr()
    assert printed.out == f"dashboard: {page}\n"
    assert "describing 16 latents on 100,000 samples" in printed.err
    assert "TopK &lt;of&gt; a toy" in page.read_text(encoding="utf-8")
    assert sorted(path.name for path in saved.iterdir()) == ["sae.json", "weights.safetensors"]
    assert (asked["n_tokens"], asked["latents"], asked["seed"]) == (100_000, list(range(16)), 3)
    assert asked["title"] == "mine (TopKSAE) on toy_superposition"
    recipe = load_recipe("toy_superposition")
    config = recipe.asked_config(["--world", "B"], smoke=True, seed=3)
    wanted = recipe.module.make_source(config, RunFolder(saved.parent / "run"))
    assert asked["source"].describe() == wanted.describe()


@pytest.mark.parametrize(
    ("arguments", "latents"),
    [
        (["--limit", "3"], [0, 1, 2]),
        (["--limit", "300"], list(range(16))),
        (["--latents", "0,5,7-9, 8"], [0, 5, 7, 8, 9]),
        (["--latents", "all"], list(range(16))),
    ],
)
def test_latents_are_chosen(saved: Path, asked: dict[str, Any], arguments: list[str], latents: list[int]) -> None:
    assert main(["dashboard", str(saved), *RECIPE, *arguments, "--tokens", "500"]) == 0
    assert asked["latents"] == latents
    assert asked["n_tokens"] == 500


def test_an_sae_of_a_run_needs_no_recipe(tmp_path: Path, saved: Path, asked: dict[str, Any]) -> None:
    recipe = load_recipe("toy_superposition")
    config = replace(recipe.module.SMOKE, world="B", train=TrainConfig(n_samples=2000, batch_size=100, seed=4))
    Report(recipe=recipe.name, config=configs.to_json(config), claim="", provenance={}, saes=[], scores=[]).write(
        tmp_path / "run"
    )
    kept = tmp_path / "run/checkpoints/step_1/saes/TopK"
    kept.parent.mkdir(parents=True)
    saved.rename(kept)
    assert main(["dashboard", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/dashboard_TopK.html").exists()
    assert asked["seed"] == 4


def test_a_folder_is_written_where_no_file_is_named(tmp_path: Path, saved: Path, asked: dict[str, Any]) -> None:
    assert main(["dashboard", str(saved), *RECIPE, "--output", str(tmp_path / "many")]) == 0
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["index.html", "latents"]


def test_open_shows_the_page(saved: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["dashboard", str(saved), *RECIPE]) == 0
    assert opened == []
    assert main(["dashboard", str(saved), *RECIPE, "--open"]) == 0
    assert opened == [(saved.parent / "dashboard_mine.html").resolve().as_uri()]


@pytest.mark.parametrize("form", ["neuronpedia", "saedashboard"])
def test_exports(tmp_path: Path, saved: Path, asked: dict[str, Any], form: str) -> None:
    names = ["--export_model", "gpt2-small", "--export_layer", "6", "--export_set", "res-jb"]
    out = tmp_path / "out.json"
    assert main(["dashboard", str(saved), *RECIPE, "--export", str(out), "--format", form, *names]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    if form == "neuronpedia":
        assert [feature["layer"] for feature in found] == ["6-res-jb"] * 3
    else:
        assert (found["model_id"], found["layer"], len(found["features"])) == ("gpt2-small", 6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no saved SAE"),
        (["SAE"], "Name it: --recipe NAME"),
        (["SAE", "--world", "B"], "dashboard: --smoke, --seed and fields of a config belong to a recipe"),
        (["SAE", "--recipe", "phase_change"], "dashboard: phase_change trains no SAE"),
        (["SAE", *RECIPE, "--tokens", "0"], "--tokens 0 asked"),
        (["SAE", *RECIPE, "--limit", "0"], "--limit 0 asked"),
        (["SAE", *RECIPE, "--latents", "3-x"], "'3-x' is no number and no range like 7-20"),
        (["SAE", *RECIPE, "--latents", "5-3"], "'5-3' asked, but this SAE has latents 0 to 15"),
        (["SAE", *RECIPE, "--latents", "16"], "this SAE has latents 0 to 15"),
        (["SAE", *RECIPE, "--export", "x.json"], "belong together"),
        (["SAE", *RECIPE, "--format", "neuronpedia"], "belong together"),
    ],
)
def test_wrong_input_is_one_clear_line(
    saved: Path, asked: dict[str, Any], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(saved) if argument == "SAE" else argument for argument in arguments]
    assert main(["dashboard", *given]) == 2
    assert message in capsys.readouterr().err
    assert asked == {}


def test_several_saes_are_listed(tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(TopKSAE(TopKSAE.Config(d_in=64, d_sae=16, k=2)), tmp_path / "other")
    assert main(["dashboard", str(tmp_path), *RECIPE]) == 2
    said = capsys.readouterr().err
    assert "2 SAEs found, but a page shows one" in said
    assert str(tmp_path / "other") in said
