"""`sae-toolkit evaluate`: one table over SAEs of one run, of several runs, and of another source."""

import csv
import json
from pathlib import Path

import pytest
import torch

from sae_toolkit import TopKSAE, TrainConfig, evaluate, load, save, train
from sae_toolkit import config as configs
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.cli import main
from sae_toolkit.ground_truth import dataset_a
from sae_toolkit.recipe import load_recipe
from sae_toolkit.report import Report
from sae_toolkit.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("few_control_samples")
QUICK = ["--leave_out", "floor/ica,floor/kmeans", "--samples", "300"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny runs of a shipped recipe, on two worlds, reported without scores."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = load_recipe("toy_superposition")
    for world in ("A", "B"):
        training = TrainConfig(n_samples=2000, batch_size=100, preparation_samples=500)
        config = recipe.module.Config(world=world, d_sae=24, train=training)
        run = RunFolder(folder / world)
        source = recipe.module.make_source(config, run)
        saes = recipe.module.make_saes(config, source)
        del saes["ReLU"]  # another sparsity would need controls of its own
        train(saes, source, training, **run.training())
        known = {"claim": "", "provenance": {}, "saes": [], "scores": []}
        Report(recipe=recipe.name, config=configs.to_json(config), **known).write(run.folder)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_holds_what_evaluate_gives(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table"
    assert main(["evaluate", str(runs / "A"), "--output", str(out), *QUICK]) == 0
    found = {(row["dictionary"], row["score"]): row for row in rows(out)}
    folder = next((runs / "A").rglob("saes")) / "TopK"
    scores = evaluate(load(folder), SuperpositionSource(dataset_a(0)), n_samples=300)["sae"]
    for name in ("explained_variance", "mean_matched_cosine", "l0"):
        assert float(found["TopK", name]["value"]) == scores[name].value
        assert found["TopK", name]["role"] == "sae"
        assert found["TopK", name]["floor"] == found["random", name]["value"]
    assert [row["dictionary"] for row in rows(out) if row["score"] == "l0"][:2] == ["TopK", "BatchTopK"]
    assert "Sparsity against quality" in (out / "report.html").read_text()
    report = json.loads((out / "report.json").read_text())
    assert {sae["name"] for sae in report["saes"]} == {"TopK", "BatchTopK"}
    assert "note:" not in capsys.readouterr().out


def test_saes_of_several_sources_meet_in_one_table(runs: Path, tmp_path: Path) -> None:
    saes = [str(next((runs / world).rglob("saes")) / "TopK") for world in ("A", "B")]
    assert main(["evaluate", *saes, "--output", str(tmp_path), *QUICK]) == 0
    found = {(row["dictionary"], row["score"]): row for row in rows(tmp_path)}
    for world in ("A", "B"):
        label = f"toy_superposition (world {world})"
        row = found[f"TopK of {world}", "explained_variance"]
        assert row["site"] == label
        assert row["floor"] == found[f"random at {label}", "explained_variance"]["value"]


def test_a_second_evaluation_scores_no_control_again(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = str(next((runs / "A").rglob("saes")) / "TopK")
    assert main(["evaluate", sae, "--output", str(tmp_path), *QUICK]) == 0
    first = rows(tmp_path)
    assert "scoring floor/random" in capsys.readouterr().err
    assert main(["evaluate", sae, "--output", str(tmp_path), *QUICK]) == 0
    assert "scoring floor/random" not in capsys.readouterr().err
    assert rows(tmp_path) == first


def test_another_source_is_scored_and_said(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sae = str(next((runs / "A").rglob("saes")) / "TopK")
    other = ["--recipe", "toy_superposition", "--world", "B"]
    assert main(["evaluate", sae, "--output", str(tmp_path), *QUICK, *other]) == 0
    assert "note: TopK was trained on another source: " in capsys.readouterr().out


def test_full_asks_at_least_as_much(runs: Path, tmp_path: Path) -> None:
    sae = str(next((runs / "A").rglob("saes")) / "TopK")
    assert main(["evaluate", sae, "--output", str(tmp_path / "full"), *QUICK, "--full"]) == 0
    assert main(["evaluate", sae, "--output", str(tmp_path / "usual"), *QUICK]) == 0
    asked = {kind: {row["score"] for row in rows(tmp_path / kind)} for kind in ("full", "usual")}
    assert asked["full"] >= asked["usual"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no saved SAE"),
        (["SAE", "--world", "B"], "fields of a config belong to a recipe"),
        (["SAE", "--smoke"], "Name it: --recipe NAME"),
        (["SAE", "--samples", "0"], "--samples 0 asked"),
        (["SAE", "--leave_out", "floor/kmean"], "floor/kmean"),
        (["SAE", "--recipe", "phase_change"], "trains no SAE"),
        (["SAE", "--recipe", "toy_superposition", "--worlds", "B"], "Did you mean world?"),
    ],
)
def test_wrong_input_is_one_clear_line(
    runs: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = str(next((runs / "A").rglob("saes")) / "TopK")
    given = [sae if argument == "SAE" else argument for argument in arguments]
    assert main(["evaluate", *given, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.html").exists()


def test_an_sae_of_no_run_needs_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sae = TopKSAE(TopKSAE.Config(d_in=64, d_sae=16, k=2))
    sae.normaliser.fit_(torch.randn(100, 64, generator=torch.Generator().manual_seed(0)))
    save(sae, tmp_path / "sae")
    assert main(["evaluate", str(tmp_path / "sae"), "--output", str(tmp_path / "out"), *QUICK]) == 2
    assert "Name it: --recipe NAME" in capsys.readouterr().err
    asked = ["--recipe", "toy_superposition", "--smoke"]
    assert main(["evaluate", str(tmp_path / "sae"), "--output", str(tmp_path / "out"), *QUICK, *asked]) == 0
