"""Interrupted == uninterrupted, bit for bit: in this process for every variant, and with real signals."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from resumable_run import run
from toy import PENALTY_VARIANTS, VARIANTS, ToySource, small_config, toy_batch

from sae_toolkit import (
    AbstractSAE,
    Checkpoints,
    LearningConfig,
    RevivalConfig,
    TrainConfig,
    load,
    train,
    weights_sha256,
)
from sae_toolkit.training import TrainingSnapshot

# Runs of a few steps cannot reach their target L0, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:SAE .* target_l0=.* reached")

SCRIPT = Path(__file__).parents[1] / "resumable_run.py"
BATCH = 32
REVIVAL = RevivalConfig(dead_after_samples=64)
LEARNING = LearningConfig(revival=REVIVAL, warmup_steps=4)
CONFIG = TrainConfig(n_samples=25 * BATCH, batch_size=BATCH, preparation_samples=64, learning=LEARNING)


class StopsAtStepError(RuntimeError):
    """The planned end of a run."""


class Stopper(Checkpoints):
    """Saves every 7 steps, and ends the run after the save at a given step, as a crash would."""

    stop_at = 14

    def save(self, snapshot: TrainingSnapshot, saes: Mapping[str, AbstractSAE]) -> Path:
        target = super().save(snapshot, saes)
        if snapshot.step == self.stop_at:
            raise StopsAtStepError
        return target


def build() -> dict[str, AbstractSAE]:
    return {variant.__name__: variant(small_config(variant)) for variant in VARIANTS}


def hashes(saes: Mapping[str, AbstractSAE]) -> dict[str, str]:
    return {name: weights_sha256(sae) for name, sae in saes.items()}


@pytest.mark.parametrize("resample_every", [None, 3 * BATCH])
@pytest.mark.parametrize("target_l0", [None, 2.0])
def test_resumed_equals_uninterrupted(resample_every: int | None, target_l0: float | None, tmp_path: Path) -> None:
    """All variants in one run, stopped at step 14 and resumed into new, differently initialised SAEs."""
    config = replace(
        CONFIG, learning=replace(LEARNING, revival=replace(REVIVAL, resample_every_samples=resample_every))
    )
    steered = {variant.__name__: replace(config.learning, target_l0=target_l0) for variant in PENALTY_VARIANTS}
    whole = build()
    train(whole, ToySource(), config, learning=steered)
    folder = tmp_path / "run"
    with pytest.raises(StopsAtStepError):
        train(build(), ToySource(), config, learning=steered, checkpoints=Stopper(folder, every_samples=7 * BATCH))
    resumed = {variant.__name__: variant(small_config(variant), seed=77) for variant in VARIANTS}
    snapshot = Checkpoints(folder).latest()
    assert snapshot is not None
    assert snapshot.step == 14
    result = train(resumed, ToySource(), config, learning=steered, resume_from=snapshot)
    assert hashes(resumed) == hashes(whole)
    assert result.n_samples == 25 * BATCH


@pytest.mark.parametrize("stop_at", [1, 24, 25])
def test_it_may_stop_after_any_step(stop_at: int, tmp_path: Path) -> None:
    class HereStopper(Stopper):
        pass

    HereStopper.stop_at = stop_at
    whole, resumed = build(), build()
    train(whole, ToySource(), CONFIG)
    with pytest.raises(StopsAtStepError):
        train(build(), ToySource(), CONFIG, checkpoints=HereStopper(tmp_path, every_samples=stop_at * BATCH))
    train(resumed, ToySource(), CONFIG, resume_from=Checkpoints(tmp_path).latest())
    assert hashes(resumed) == hashes(whole)


def test_resuming_writes_only_what_is_due(tmp_path: Path) -> None:
    with pytest.raises(StopsAtStepError):
        train(build(), ToySource(), CONFIG, checkpoints=Stopper(tmp_path, every_samples=7 * BATCH, keep=9))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    keeper = Checkpoints(tmp_path, every_samples=7 * BATCH, keep=9)
    train(build(), ToySource(), CONFIG, checkpoints=keeper, resume_from=keeper.latest())
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())
    assert [path.name[-2:] for path in sorted(tmp_path.iterdir())] == ["07", "14", "21", "25"]


def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole, resumed = build(), build()
    train(whole, ToySource(), CONFIG)
    with pytest.raises(StopsAtStepError):
        train(build(), ToySource(), CONFIG, checkpoints=Stopper(tmp_path, every_samples=7 * BATCH))
    (tmp_path / "step_000000014" / "learners" / "ReluSAE.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match=r"skipping a damaged checkpoint.*step_000000014.*ReluSAE"):
        snapshot = Checkpoints(tmp_path).latest()
    assert snapshot is not None
    assert snapshot.step == 7
    train(resumed, ToySource(), CONFIG, resume_from=snapshot)
    assert hashes(resumed) == hashes(whole)


def other_setups() -> list[Any]:
    relu = "ReluSAE"
    return [
        pytest.param({"config": replace(CONFIG, seed=5)}, r"train\.seed: saved 0, asked 5", id="seed"),
        pytest.param({"config": replace(CONFIG, n_samples=BATCH)}, r"n_samples: saved 800, asked 32", id="length"),
        pytest.param({"source": ToySource(note="x")}, r"source\.note: saved '', asked 'x'", id="source"),
        pytest.param(
            {"learning": {relu: replace(LEARNING, learning_rate=0.5)}}, r"learning\.ReluSAE.*asked 0\.5", id="learning"
        ),
        pytest.param(
            {"saes": {**build(), relu: build()["TopKSAE"]}}, r"saes\.ReluSAE\.variant: saved 'ReluSAE'", id="variant"
        ),
        pytest.param({"saes": {relu: build()[relu]}}, r"saes\.TopKSAE", id="fewer SAEs"),
    ]


@pytest.mark.parametrize(("changes", "message"), other_setups())
def test_another_setup_is_refused_with_the_difference(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(StopsAtStepError):
        train(build(), ToySource(), CONFIG, checkpoints=Stopper(tmp_path, every_samples=7 * BATCH))
    saes, source = changes.get("saes", build()), changes.get("source", ToySource())
    before = hashes(saes)
    with pytest.raises(ValueError, match=message):
        train(
            saes,
            source,
            changes.get("config", CONFIG),
            learning=changes.get("learning"),
            resume_from=Checkpoints(tmp_path).latest(),
        )
    assert hashes(saes) == before


def start(folder: Path, variants: list[str], **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps(variants), json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(process: "subprocess.Popen[str]", folder: Path) -> None:
    before = set(folder.glob("step_*/run.json"))
    deadline = time.monotonic() + 60
    while not set(folder.glob("step_*/run.json")) - before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_bit(tmp_path: Path) -> None:
    """Killed, resumed, killed again, and resumed to the end."""
    every = [variant.__name__ for variant in VARIANTS]
    for resume in (False, True):
        killed = start(tmp_path / "killed", every, delay=0.01, resume=resume, target_l0=2.0)
        wait_for_checkpoint(killed, tmp_path / "killed")
        time.sleep(time.time_ns() % 1000 / 1000)  # up to a second: any moment, also within a save
        assert killed.poll() is None, "it was done before it could be killed"
        killed.kill()
        killed.communicate()
    assert run(tmp_path / "killed", every, resume=True, target_l0=2.0) == run(None, every, target_l0=2.0)
    assert not list((tmp_path / "killed").glob(".unfinished-*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_resumable_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    stopped = start(tmp_path, ["TopKSAE"], delay=0.02)
    wait_for_checkpoint(stopped, tmp_path)
    stopped.send_signal(number)
    output, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 3, errors
    message, checkpoint = output.splitlines()
    assert number.name in message
    assert load(checkpoint).encode(toy_batch(2)).shape == (2, 16)
    assert run(tmp_path, ["TopKSAE"], resume=True) == run(None, ["TopKSAE"])
