"""What `train` refuses before anything is computed, and what it gives back."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from toy import ToySource, small_config, toy_batch

from sae_toolkit import LearningConfig, TopKSAE, TrainConfig, train
from sae_toolkit.training.learner import Learner

CONFIG = TrainConfig(n_samples=70, batch_size=32, preparation_samples=64)


def test_samples_are_rounded_up_to_whole_batches() -> None:
    result = train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG)
    assert (result.n_steps, result.n_samples) == (3, 96)
    assert result.seconds > 0


def test_excluded_samples_are_counted_by_reason() -> None:
    """Two per batch of the training stream; the preparation streams do not count."""
    assert train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG).excluded == {"toy reason": 6}


def test_a_single_sae_is_called_sae() -> None:
    sae = TopKSAE(small_config(TopKSAE))
    assert train(sae, ToySource(), CONFIG).saes == {"sae": sae}


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", ".", ".."])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an SAE"):
        train({name: TopKSAE(small_config(TopKSAE))}, ToySource(), CONFIG)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"saes": {}}, "no SAE given"),
        ({"learning": {"wide": LearningConfig()}}, "learning given for 'wide', but the SAEs are narrow"),
    ],
)
def test_other_impossible_calls_are_refused(arguments: dict[str, Any], message: str) -> None:
    saes = arguments.pop("saes", {"narrow": TopKSAE(small_config(TopKSAE))})
    with pytest.raises(ValueError, match=message):
        train(saes, ToySource(), CONFIG, **arguments)


def test_the_caller_keeps_its_configs() -> None:
    learning = LearningConfig(learning_rate=0.02)
    sae_config = small_config(TopKSAE)
    train({"sae": TopKSAE(sae_config)}, ToySource(), CONFIG, learning={"sae": learning})
    assert learning == LearningConfig(learning_rate=0.02)
    assert sae_config == small_config(TopKSAE)


def test_the_initial_statistics_follow_the_seed() -> None:
    first, again, other = (TopKSAE(small_config(TopKSAE)) for _ in range(3))
    for sae, seed in ((first, 0), (again, 0), (other, 1)):
        train(sae, ToySource(), replace(CONFIG, seed=seed))
    assert torch.equal(first.normaliser.shift, again.normaliser.shift)
    assert not torch.equal(first.normaliser.shift, other.normaliser.shift)


def test_an_sae_trained_before_goes_on_with_its_own_statistics() -> None:
    sae = TopKSAE(small_config(TopKSAE))
    train(sae, ToySource(), CONFIG)
    shift, weights = sae.normaliser.shift.clone(), sae.W_enc.clone()
    train(sae, ToySource(), replace(CONFIG, seed=1))
    assert torch.equal(sae.normaliser.shift, shift)
    assert not torch.equal(sae.W_enc, weights)


def test_resampling_comes_each_time_so_many_samples_have_gone_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 32, every 80 samples: after 96 (past 80), 160 and 256 (past 240) samples, that is steps 3, 5 and 8."""
    done: list[int] = []

    def resample(*arguments: Any, target: Any) -> torch.Tensor:
        done.append(learner.optimizer.state[learner.sae.W_enc]["step"].int().item())
        return torch.zeros(0, dtype=torch.int64)

    monkeypatch.setattr("sae_toolkit.training.learner.resample_", resample)
    learning = LearningConfig(resample_every_samples=80)
    learner = Learner(TopKSAE(small_config(TopKSAE)), learning, n_steps=8, batch_size=32, seed=0)
    for step in range(8):
        learner.step(toy_batch(32, seed=step), step, before_update=lambda result: None)
    assert done == [3, 5, 8]
