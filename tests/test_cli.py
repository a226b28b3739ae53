"""The command line: what it prints, what it refuses, and with which exit status."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import small_config

from sae_toolkit import TopKSAE, save
from sae_toolkit.cli import main

pytestmark = pytest.mark.usefixtures("few_control_samples")
RECIPE = '''"""Tiny.

    sae-toolkit run tiny
"""
import os
from dataclasses import dataclass
from pathlib import Path
from sae_toolkit import TopKSAE, TrainConfig, train
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import hierarchical_world
from sae_toolkit.ground_truth import IndependentFiring, RectifiedNormalMagnitudes, World, random_directions
from sae_toolkit.metrics import score_with_controls
from sae_toolkit.report import Expectation, build_report
import torch

@dataclass(frozen=True, kw_only=True)
class Config:
    k: int = 2
    d_sae: int = 16
    eval_samples: int = 500
    bound: float = 0.0
    train: TrainConfig = TrainConfig(n_samples=2000, batch_size=100, preparation_samples=500)

SMOKE = Config(k=1)

LEAVE_OUT = ("floor/ica",)

def make_source(config, run):
    firing = IndependentFiring(probabilities=torch.full((12,), 0.2))
    magnitudes = RectifiedNormalMagnitudes.same_for_all(12, mean=1.0, std=0.2)
    world = World(directions=random_directions(12, 8, seed=0), firing=firing, magnitudes=magnitudes)
    return SuperpositionSource(world)

def make_saes(config, source):
    return {{"TopK": TopKSAE(TopKSAE.Config(d_in=8, d_sae=config.d_sae, k=config.k), seed=config.train.seed)}}

def main(config, run):
    (Path(run.folder) / "environment").write_text(str({{k: v for k, v in os.environ.items() if "OFFLINE" in k}}))
    if config.bound > 0:
        raise {error}
    source = make_source(config, run)
    saes = make_saes(config, source)
    train(saes, source, config.train, **run.training())
    ladder = score_with_controls(saes, source, n_samples=config.eval_samples, leave_out=LEAVE_OUT)
    return build_report(config, run, saes, source, ladder)

EXPECTED = (Expectation(score="explained_variance", sae="TopK", at_least=0.0),)
SMOKE_EXPECTED = (
    Expectation(score="explained_variance", sae="TopK", at_least=2.0),
    Expectation(score="l0", sae="TopK", at_most=1.0),
)
'''


IN_GROUPS = '''"""Groups of four samples, five to train on and one held out."""
from dataclasses import dataclass
import torch
from sae_toolkit import ReluSAE, TrainConfig
from sae_toolkit.activations import ActivationSource
from sae_toolkit.activations.shuffle import GroupReader, GroupRows, ShuffledStream, WindowExtent

@dataclass(frozen=True, kw_only=True)
class Config:
    train: TrainConfig = TrainConfig(n_samples=40, batch_size=4, preparation_samples=8)

class Groups(ActivationSource, GroupReader):
    d_in = 3
    max_group_samples = 4

    def extent(self, split, start):
        n_groups = 5 if split == "train" else 1
        return WindowExtent(n_groups, None, 4 * n_groups)

    def read_group_rows(self, split, start, group):
        ids = torch.arange(4)
        return GroupRows(torch.ones(4, 3) * group, ids, ids, ids + group, {"position": ids < 0})

    def stream(self, batch_size, *, seed, split):
        return ShuffledStream(self, {}, buffer_samples=8, batch_size=batch_size, seed=seed, split=split)

    def describe(self):
        return {"name": "Groups"}

def make_source(config, run):
    return Groups()

def make_saes(config, source):
    return {"ReLU": ReluSAE(ReluSAE.Config(d_in=3, d_sae=6))}

def main(config, run): ...

SMOKE, EXPECTED, SMOKE_EXPECTED = Config(), (), ()
'''


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(RECIPE.format(error="ValueError('bound too high')"))
    return str(path)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_list_names_every_recipe_with_its_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "toy_superposition TopK, BatchTopK and ReLU SAEs find the true features" in " ".join(said(capsys).split())


def test_run_writes_the_report_and_says_where(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["run", tiny, "--output", str(out), "--k", "3", "--train.learning.learning_rate=0.004"]) == 0
    assert f"report: {out / 'report.html'}" in said(capsys)
    assert {path.name for path in out.iterdir()} >= {"report.html", "report.json", "checkpoints", "log.jsonl"}
    assert '"k": 3' in (out / "report.json").read_text()
    assert '"learning_rate": 0.004' in (out / "report.json").read_text()


def test_a_second_run_needs_resume(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["run", tiny, "--output", out]) == 0
    assert main(["run", tiny, "--output", out]) == 2
    assert "already holds a run. Add --resume" in said(capsys)
    assert main(["run", tiny, "--output", out, "--resume"]) == 0


def test_resume_with_another_config_is_refused_with_the_difference(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["run", tiny, "--output", out]) == 0
    assert main(["run", tiny, "--output", out, "--resume", "--seed", "5"]) == 2
    assert "train.seed: saved 0, asked 5" in said(capsys)


def test_plan_prints_the_parts_and_trains_nothing(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", tiny, "--train.n_samples", "5000", "--output", str(tmp_path / "out")]) == 0
    text = said(capsys)
    assert "50 of 100 samples" in text  # 5,000 samples in batches of 100
    # 2 * 8 * 16 weights + 16 + 8 biases = 280 parameters of 4 bytes, and Adam keeps two numbers for each
    assert "weights of 1 SAE, 280 parameters" in text
    assert "gradients of 1 SAE" in text
    assert "1.12 kB" in text
    assert "2.24 kB" in text
    assert "predicted peak of memory" in text
    assert "predicted time of training" in text
    assert not (tmp_path / "out").exists()


def test_plan_refuses_what_will_not_fit(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", tiny, "--d_sae", "20000000000", "--train.batch_size", "10"]) == 2
    text = said(capsys)
    assert "will not fit: at least" in text
    # 2 * (2 * 8 * 2e10 + 2e10 + 8) * 4 bytes of moments
    assert "The largest part is optimizer moments of 1 SAE (2.72 TB): lower d_sae" in text


@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.parametrize("offline", [True, False])
def test_offline_keeps_the_libraries_off_the_network(tmp_path: Path, command: str, offline: bool) -> None:
    path = tmp_path / "tiny.py"
    path.write_text(RECIPE.format(error="ValueError('seen enough')").replace("config.bound > 0", "True"))
    code = "import sys; from sae_toolkit.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [command, str(path), "--output", str(tmp_path / "out"), *(["--offline"] if offline else [])]
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, check=False, capture_output=True, text=True
    )
    assert "seen enough" in done.stderr
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    expected = dict.fromkeys(names, "1") if offline else {}
    assert ast.literal_eval((tmp_path / "out" / "environment").read_text()) == expected


def test_a_source_that_cannot_be_cached_is_one_clear_line(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "build", tiny, "--cache", str(tmp_path / "cache")]) == 2
    assert "a SuperpositionSource given, but only a source that reads a language model" in said(capsys)


def test_a_cache_is_built_described_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, cache = tmp_path / "read_in_groups.py", str(tmp_path / "cache")
    path.write_text(IN_GROUPS)
    monkeypatch.setenv("COLUMNS", "200")
    # (20 train + 4 eval samples) * (3 floats of 4 bytes + 3 labels of 8 + 1 byte of reasons)
    assert main(["cache", "build", str(path), "--cache", cache]) == 0
    text = said(capsys)
    assert "888 bytes of float32" in text
    assert "cache 24/24 samples, 888 bytes" in text
    assert "samples / train = 20\nsamples / eval = 4" in text
    assert main(["cache", "verify", cache]) == 0
    assert "every byte is as it was written" in said(capsys)
    shard = next(Path(cache).rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert main(["cache", "info", cache]) == 0
    assert main(["cache", "verify", cache]) == 2
    assert shard.name in said(capsys)


def test_fields_are_only_taken_where_a_config_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info", str(tmp_path), "--k", "3"]) == 2
    assert "unknown argument '--k' for cache info" in said(capsys)


def test_verify_names_what_is_missed(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", tiny]) == 0
    assert "1 of 1 expected numbers met" in said(capsys)
    assert main(["verify", tiny, "--smoke"]) == 1
    text = said(capsys)
    assert "MISSED  explained_variance of TopK" in text
    assert "1 of 2 expected numbers met" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kk", "3"], "Did you mean k?"),
        (["--train.n_sample", "3"], "Did you mean train.n_samples?"),
        (["--k", "many"], "k: 'many' given, but int is needed"),
        (["--k"], "--k needs a value"),
        (["--k", "--bound", "1.0"], "--k needs a value"),
        (["--k", "17"], "k=17 asked, but d_sae=16"),
        (["--train.n_samples", "0"], "n_samples=0 given"),
        (["stray"], "'stray' is not understood"),
        (["--bound", "1.0"], "bound too high"),
    ],
)
def test_wrong_input_is_one_clear_line(
    tiny: str, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", tiny, "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in said(capsys)


def test_a_full_disk_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.py"
    path.write_text(RECIPE.format(error="OSError(28, 'No space left on device', 'x/weights')"))
    assert main(["run", str(path), "--output", str(tmp_path / "out"), "--bound", "1.0"]) == 1
    assert "No space left on device: x/weights" in said(capsys)


def test_an_output_that_is_a_file_is_one_clear_line(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["run", tiny, "--output", str(tmp_path / "taken")]) == 1
    assert "taken" in said(capsys)


def test_copy_gives_a_runnable_file_and_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.py"
    assert main(["copy", "toy_superposition", str(target)]) == 0
    assert target.read_text().startswith('"""TopK, BatchTopK')
    assert main(["copy", "toy_superposition", str(target)]) == 2
    assert "exists already" in said(capsys)


def test_report_renders_a_run_again(tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["run", tiny, "--output", str(out)]) == 0
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == before


def test_info_describes_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(TopKSAE(small_config(TopKSAE)), tmp_path / "sae")
    assert main(["info", str(tmp_path / "sae")]) == 0
    text = said(capsys)
    assert "TopKSAE: 8 -> 16 latents" in text
    assert "k = 3" in text


def test_info_on_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tmp_path)]) == 2
    assert "holds 0 SAEs" in said(capsys)


def test_wandb_is_logged_to_when_asked(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    class FakeLog:
        def __init__(self, *, project: str, config: dict[str, object], dir: str) -> None:
            calls.append((project, config["k"]))

        def __call__(self, record: dict[str, object]) -> None:
            calls.append(record["step"])

        def finish(self) -> None:
            calls.append("finished")

    monkeypatch.setattr("sae_toolkit.loggers.WandbLog", FakeLog)
    assert main(["run", tiny, "--output", str(tmp_path / "out"), "--wandb", "mine"]) == 0
    assert calls == [("mine", 2), 20, "finished"]
