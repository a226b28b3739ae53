"""A number that is not finite stops the run, names where it appeared, and reaches no weight."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import VARIANTS, ToySource, small_config

from sae_toolkit import (
    AbstractSAE,
    Checkpoints,
    LearningConfig,
    ReluSAE,
    SAEOutput,
    TrainConfig,
    TrainingSignals,
    train,
)
from sae_toolkit.training import NonFiniteError
from sae_toolkit.training.guard import Guard, refuse_non_finite_batch

CONFIG = TrainConfig(n_samples=640, batch_size=32, preparation_samples=64)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_bad_sample_stops_the_run_before_any_update(variant: type[AbstractSAE], value: float, tmp_path: Path) -> None:
    """Batch 7 (from 0) is bad, so step 8 is refused; the weights are those after seven steps."""
    sae = variant(small_config(variant))
    keeper = Checkpoints(tmp_path, every_samples=32)
    with pytest.raises(NonFiniteError, match=r"step 8: the activations hold 1 row.*row 1 .*step_000000007"):
        train(sae, ToySource(bad_at=7, bad_value=value), CONFIG, checkpoints=keeper)
    snapshot = keeper.latest()
    assert snapshot is not None
    assert snapshot.step == 7
    for name, tensor in sae.state_dict().items():
        assert torch.equal(tensor, snapshot.weights["sae"][name]), name


def test_a_bad_first_sample_is_found_before_the_first_step() -> None:
    sae = ReluSAE(small_config(ReluSAE))
    with pytest.raises(NonFiniteError, match=r"step 0: the activations hold 1 row.*none"):
        train(sae, ToySource(bad_at=0), CONFIG)
    assert not sae.normaliser.fitted


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_bad_calibration_sample_is_not_calibrated_on(variant: type[AbstractSAE]) -> None:
    """The seventh batch of the preparation streams is bad."""
    config = TrainConfig(n_samples=64, batch_size=32, preparation_samples=32 * 8)
    with pytest.raises(NonFiniteError, match="activations hold"):
        train(variant(small_config(variant)), ToySource(bad_at=6), config)


def test_finite_activations_whose_sum_overflows_are_no_error() -> None:
    refuse_non_finite_batch(torch.full((4, 4), 3e38), step=1, last_good="none")


class ExplodingSAE(AbstractSAE):
    """Its loss term "trap" is not finite at the third step of training; its gradient always is where asked so."""

    config: AbstractSAE.Config
    steps = 0
    value = float("nan")
    only_gradient = False

    def encode_latents(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.W_enc).relu()

    def loss_terms(self, x: torch.Tensor, output: SAEOutput, signals: TrainingSignals) -> dict[str, torch.Tensor]:
        self.steps += 1
        mse = self.normalised_error(x, output).square().mean()
        if self.steps < 3:
            return {"mse": mse, "trap": mse * 0}
        if self.only_gradient:  # sqrt at 0: value 0, gradient infinite
            return {"mse": mse, "trap": (self.b_enc - self.b_enc.detach()).abs().sum().sqrt()}
        return {"mse": mse, "trap": mse * self.value}


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"value": float("nan")}, "loss term trap"),
        ({"value": float("inf")}, "loss term trap"),
        ({"only_gradient": True}, "gradient of b_enc"),
    ],
)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_diverging_loss_names_its_tensor_and_leaves_the_weights(
    settings: dict[str, Any], where: str, clip_norm: float | None, tmp_path: Path
) -> None:
    sae = ExplodingSAE(AbstractSAE.Config(d_in=8, d_sae=16))
    for name, value in settings.items():
        setattr(sae, name, value)
    learning = LearningConfig(clip_norm=clip_norm)
    config = TrainConfig(n_samples=640, batch_size=32, preparation_samples=64, learning=learning)
    keeper = Checkpoints(tmp_path, every_samples=64)
    with pytest.raises(NonFiniteError, match=rf"step 3: SAE 'sae' diverged.*{where}.*step_000000002"):
        train(sae, ToySource(), config, checkpoints=keeper)
    snapshot = keeper.latest()
    assert snapshot is not None
    for name, tensor in sae.state_dict().items():
        assert torch.equal(tensor, snapshot.weights["sae"][name]), name


@pytest.mark.parametrize("delay_steps", [1, 3])
def test_a_late_answer_is_not_too_late(delay_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: step 3 is not finite, the run goes on for a while, but nothing is updated with it."""
    monkeypatch.setattr("sae_toolkit.training.run.Guard", lambda: Guard(delay_steps))
    good, bad = (ExplodingSAE(AbstractSAE.Config(d_in=8, d_sae=16)) for _ in "ab")
    learning = LearningConfig(decay_fraction=0.0)  # the short run has the same learning rates as the long one
    config = TrainConfig(n_samples=640, batch_size=32, preparation_samples=64, learning=learning)
    train(good, ToySource(), replace(config, n_samples=64))
    with pytest.raises(NonFiniteError, match=r"step 3: SAE 'sae' diverged.*loss term trap"):
        train(bad, ToySource(), config)
    assert bad.steps == 3 + delay_steps
    for name, tensor in bad.state_dict().items():  # equal but for rows normalised once more
        torch.testing.assert_close(tensor, good.state_dict()[name], rtol=0, atol=1e-6, msg=name)


def test_a_bad_sample_is_named_as_such_when_found_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_toolkit.training.run.Guard", lambda: Guard(1))
    with pytest.raises(NonFiniteError, match=r"step 8: the activations hold 1 row.*row 1 "):
        train(ReluSAE(small_config(ReluSAE)), ToySource(bad_at=7), CONFIG)


def test_no_checkpoint_is_written_over_an_open_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sae_toolkit.training.run.Guard", lambda: Guard(100))
    sae = ExplodingSAE(AbstractSAE.Config(d_in=8, d_sae=16))
    with pytest.raises(NonFiniteError, match="step 3"):
        train(sae, ToySource(), CONFIG, checkpoints=Checkpoints(tmp_path, every_samples=64))
    snapshot = Checkpoints(tmp_path, every_samples=64).latest()
    assert snapshot is not None
    assert snapshot.step == 2
