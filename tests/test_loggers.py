"""Loggers: what they write, and that they say it once per record."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from toy import ToySource, small_config

from sae_toolkit import TopKSAE, TrainConfig, train
from sae_toolkit.loggers import JsonlLog, MemoryLog, ProgressLog, WandbLog, log_to_all, progress_text

CONFIG = TrainConfig(n_samples=10 * 32, batch_size=32, preparation_samples=64)
NUMBERS = {"loss": 0.12345, "l0": 3.04, "dead": 0.125}
RECORD = {
    "step": 5, "n_steps": 10, "samples": 160, "seconds": 2.0, "samples_per_second": 12345.6, "seconds_left": 7.4,
    "saes": {"a": NUMBERS},
}  # fmt: skip


def train_with(log: Any, **options: Any) -> None:
    train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG, log=log, **options)


def test_jsonl_holds_one_line_per_record_and_every_number(tmp_path: Path) -> None:
    train_with(JsonlLog(tmp_path / "new" / "log.jsonl"), log_every_steps=4)
    lines = [json.loads(line) for line in (tmp_path / "new" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 10]
    assert [line["samples"] for line in lines] == [128, 256, 320]
    assert lines[0].keys() == {
        "step", "n_steps", "samples", "seconds", "samples_per_second", "seconds_left", "saes"
    }  # fmt: skip
    numbers = lines[0]["saes"]["sae"]
    assert numbers.keys() >= {"loss", "mse", "auxk", "l0", "dead", "gradient_norm", "learning_rate", "sparsity_weight"}
    assert numbers["loss"] == pytest.approx(numbers["mse"] + numbers["auxk"])
    assert lines[-1]["seconds_left"] == 0


def test_jsonl_appends(tmp_path: Path) -> None:
    for i in range(2):
        JsonlLog(tmp_path / "log.jsonl")({"step": i})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n'


def test_jsonl_of_a_resumed_run_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log = JsonlLog(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        log({"step": step})
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert log.records_until(2) == [{"step": 1}, {"step": 2}]
    log({"step": 3})
    assert log.path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_the_learning_rate_logged_is_the_one_used() -> None:
    memory = MemoryLog()
    train_with(memory, log_every_steps=1)
    rates = [record["saes"]["sae"]["learning_rate"] for record in memory.records]
    assert len(set(rates)) > 1
    assert min(rates) > 0


def test_the_probe_joins_its_records() -> None:
    memory = MemoryLog()
    train_with(
        memory, log_every_steps=4, probe=lambda saes: {name: {"score": 1.5} for name in saes}, probe_every_steps=5
    )
    assert [(record["step"], "probe" in record) for record in memory.records] == [
        (4, False), (5, True), (8, False), (10, True)
    ]  # fmt: skip
    assert memory.records[1]["probe"] == {"sae": {"score": 1.5}}


@pytest.mark.parametrize("option", ["log_every_steps", "probe_every_steps"])
def test_an_impossible_cadence_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0"):
        train_with(MemoryLog(), **{option: 0})


def test_several_loggers_get_every_record() -> None:
    first, second = MemoryLog(), MemoryLog()
    log_to_all(first, second)({"step": 1})
    assert first.records == second.records == [{"step": 1}]


def test_progress_is_one_line_with_units() -> None:
    assert progress_text(RECORD) == "12,346 samples/s | 7 s left | a: loss 0.1235 L0 3.0 dead 12.5%"


def test_progress_of_many_saes_stays_short() -> None:
    text = progress_text(RECORD | {"saes": dict.fromkeys("abcde", NUMBERS)})
    assert text.endswith("+2 more")
    assert "d:" not in text


def test_progress_goes_to_stderr_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLog("my run") as log:
        log(RECORD)
        log(RECORD | {"step": 10, "seconds": 4.0})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.replace("\n", " ").startswith("my run 10/10 steps")


def records_of(path: Path) -> bytes:
    """A .wandb file without the 7-byte headers at the start of its 32 KiB blocks, which may cut a name in two."""
    data, block = path.read_bytes(), 2**15
    return data[:block] + b"".join(data[start + 7 : start + block] for start in range(block, len(data), block))


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", exc_type=ImportError)
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    log = WandbLog(project="toy", config={"k": 3}, dir=str(tmp_path))
    log(RECORD | {"probe": {"a": {"score": 1.0}}})
    log.finish()
    (written,) = tmp_path.rglob("*.wandb")
    names = (b"a/loss", b"a/l0", b"a/score", b"samples_per_second")
    deadline = time.monotonic() + 30  # wandb writes from a process of its own
    while missing := [name for name in names if name not in records_of(written)]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)


def test_without_wandb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"sae-toolkit\[wandb\]"):
        WandbLog(project="toy")
