"""Where a run lives: nothing of an earlier run is overwritten, and a resumed log has no line twice."""

import json
from pathlib import Path

import pytest
from toy import ToySource, small_config

from sae_toolkit import TopKSAE, TrainConfig, train
from sae_toolkit.run_folder import RunFolder

CONFIG = TrainConfig(n_samples=400, batch_size=20, preparation_samples=64)


def make_sae() -> TopKSAE:
    return TopKSAE(small_config(TopKSAE), seed=0)


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    train({"a": make_sae()}, ToySource(), CONFIG, **RunFolder(tmp_path).training())
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder(tmp_path)


def test_a_resumed_run_logs_every_step_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    train({"a": make_sae()}, ToySource(), CONFIG, log_every_steps=2, **run.training(checkpoint_every_samples=200))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 19, "cut off')
    resumed = RunFolder(tmp_path, resume=True)
    train({"a": make_sae()}, ToySource(), CONFIG, log_every_steps=2, **resumed.training())
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 21, 2))
    assert [record["step"] for record in resumed.memory.records] == steps


def test_a_part_reports_paths_from_the_whole(tmp_path: Path) -> None:
    part = RunFolder(tmp_path).part("seed_3")
    train({"a": make_sae()}, ToySource(), CONFIG, **part.training())
    assert part.relative(part.sae_path("a")).as_posix() == "seed_3/checkpoints/step_000000020/saes/a"
