"""`sae-toolkit compare`: the table, the files, and what it refuses."""

import csv
import json

import numpy as np
import pytest
import torch

from sae_toolkit import TopKSAE, load, save, weights_sha256
from sae_toolkit.cli import main
from sae_toolkit.compare_command import names_of


@pytest.fixture
def saved(tmp_path):
    """Two copies of one SAE, the second with its last latent replaced, and a third of other seed."""
    saes = [TopKSAE(TopKSAE.Config(d_in=64, d_sae=20, k=3), seed=seed).eval() for seed in (0, 0, 1)]
    saes[1].W_dec.data[19] = -saes[1].W_dec.data[19]
    return [str(save(sae, tmp_path / "runs" / f"seed_{i}")) for i, sae in enumerate(saes)]


def test_the_table_says_how_alike_and_how_alike_chance_is(saved, capsys):
    assert main(["compare", *saved]) == 0
    printed = capsys.readouterr().out
    assert "seed_0 ~ seed_1: PW-MCC 0.9" in printed  # 19 of 20 pairs at 1
    assert "TopKSAE, 20 of 20 latents alive" in printed
    assert "every latent counts as alive" in printed
    assert "found_in_3" in printed


def test_the_files_hold_the_numbers(saved, tmp_path):
    assert main(["compare", *saved[:2], "--output", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert content["source"] is None
    assert content["saes"]["seed_0"]["path"] == saved[0]
    assert len(content["saes"]["seed_1"]["weights_sha256"]) == 64
    assert content["scores"]["shared_at_0.7"]["value"] == pytest.approx(19 / 20)
    scores = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    assert float(scores[0]["value"]) == content["scores"]["pw_mcc"]["value"]
    assert float(scores[0]["floor_high"]) < float(scores[0]["value"])
    latents = list(csv.DictReader((tmp_path / "out/latents.csv").read_text().splitlines()))
    assert [row["found_in"] for row in latents] == (["2"] * 19 + ["1"]) * 2


def test_alive_is_decided_on_a_recipes_source(saved, tmp_path, capsys):
    asked = ["compare", *saved[:2], "--recipe", "toy_superposition", "--smoke", "--n_samples", "64"]
    assert main([*asked, "--train.seed", "3", "--output", str(tmp_path / "out")]) == 0
    assert "alive: fired in 64 held-out samples of SuperpositionSource" in capsys.readouterr().out
    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert content["source"]["name"] == "SuperpositionSource"
    assert main([*asked, "--no.such", "3"]) == 2


def test_alive_is_decided_on_activations(saved, tmp_path, capsys):
    sae = TopKSAE(TopKSAE.Config(d_in=64, d_sae=20, k=3), seed=0)
    rows = sae.W_dec.detach()[:5].repeat(40, 1) * (1 + torch.rand(200, 1, generator=torch.Generator().manual_seed(0)))
    np.save(tmp_path / "acts.npy", rows.numpy())
    assert main(["compare", *saved[:2], "--activations", str(tmp_path / "acts.npy")]) == 0
    printed = capsys.readouterr().out
    assert "of 20 latents alive" in printed
    assert "20 of 20" not in printed
    assert "ArraySource" in printed


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (["--recipe", "toy_superposition", "--activations", "x.npy"], "both --recipe and --activations"),
        (["--recipe", "phase_change"], "trains no SAE"),
        (["--train.seed", "3"], "unknown argument"),
    ],
)
def test_what_cannot_be_done_is_one_line(saved, asked, complaint, capsys):
    assert main(["compare", *saved[:2], *asked]) == 2
    assert complaint in capsys.readouterr().err


def test_one_sae_is_no_comparison(saved, capsys):
    assert main(["compare", saved[0]]) == 2
    assert "at least 2" in capsys.readouterr().err


def test_names_are_as_short_as_they_can_be():
    assert names_of(["a/seed_0", "a/seed_1"]) == {"seed_0": "a/seed_0", "seed_1": "a/seed_1"}
    assert names_of(["a/TopK", "b/TopK"]) == {"a/TopK": "a/TopK", "b/TopK": "b/TopK"}
    with pytest.raises(ValueError, match="another one"):
        names_of(["a", "a"])


def test_the_library_and_the_command_agree_on_the_weights(saved, tmp_path):
    main(["compare", *saved[:2], "--output", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert content["saes"]["seed_1"]["weights_sha256"] == weights_sha256(load(saved[1]))
