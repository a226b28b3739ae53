"""Signals in this process: noted between two steps, the usual handlers back afterwards."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from toy import ToySource, small_config

from sae_toolkit import Checkpoints, TopKSAE, TrainConfig, train, weights_sha256
from sae_toolkit.training import TrainingInterrupted
from sae_toolkit.training.interruption import SignalCatcher

CONFIG = TrainConfig(n_samples=320, batch_size=32, preparation_samples=64)


def interrupt_at(step: int) -> Any:
    def log(record: dict[str, Any]) -> None:
        if record["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return log


def test_the_current_step_is_finished_and_saved(tmp_path: Path) -> None:
    whole, stopped, resumed = (TopKSAE(small_config(TopKSAE)) for _ in range(3))
    train(whole, ToySource(), CONFIG)
    keeper = Checkpoints(tmp_path)
    with pytest.raises(TrainingInterrupted, match=r"SIGINT; resume from .*step_000000004") as raised:
        train(stopped, ToySource(), CONFIG, log=interrupt_at(4), log_every_steps=1, checkpoints=keeper)
    assert raised.value.checkpoint == str(tmp_path / "step_000000004")
    train(resumed, ToySource(), CONFIG, resume_from=keeper.latest())
    assert weights_sha256(resumed) == weights_sha256(whole)


def test_without_checkpoints_it_says_that_nothing_was_kept() -> None:
    with pytest.raises(TrainingInterrupted, match="nothing was kept") as raised:
        train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG, log=interrupt_at(4), log_every_steps=1)
    assert raised.value.checkpoint is None


def test_a_signal_in_the_last_step_lets_the_run_finish() -> None:
    result = train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG, log=interrupt_at(10), log_every_steps=1)
    assert result.n_steps == 10


def test_the_handlers_of_before_are_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with SignalCatcher() as catcher:
        os.kill(os.getpid(), signal.SIGTERM)
        assert catcher.caught == signal.SIGTERM
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_acts_as_usual() -> None:
    # a shell starts background jobs with SIGINT ignored, so what is usual is set here
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with SignalCatcher():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_in_another_thread_works() -> None:
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG).n_steps)
    )
    thread.start()
    thread.join()
    assert results == [10]
