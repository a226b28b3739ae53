"""The factor on a sparsity penalty: a warm-up, or feedback towards a target L0."""

import pytest
import torch
from toy import PENALTY_VARIANTS, ToySource, small_config

from sae_toolkit import AbstractSAE, LearningConfig, ReluSAE, TopKSAE, TrainConfig, train
from sae_toolkit.training.sparsity_control import SparsityControl


def control(**changes: float | None) -> SparsityControl:
    return SparsityControl(LearningConfig(**changes), n_steps=8, device=torch.device("cpu"))


def test_without_a_target_it_is_the_warm_up() -> None:
    fixed = control(sparsity_warmup_fraction=0.5)
    weights = []
    for step in range(8):
        weights.append(float(fixed.weight(step)))
        fixed.update(torch.tensor(100.0), step)
    assert weights == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("l0", "rises"), [(9.0, True), (1.0, False)])
def test_too_many_active_latents_raise_the_weight_and_too_few_lower_it(l0: float, rises: bool) -> None:
    steered = control(target_l0=3.0, sparsity_warmup_fraction=0.0)
    for step in range(8):
        steered.update(torch.tensor(l0), step)
    assert (float(steered.log_weight) > 0) is rises


@pytest.mark.parametrize("l0", [0.0, 1e9])
def test_the_weight_stays_finite_whatever_happens(l0: float) -> None:
    steered = control(target_l0=3.0)
    for step in range(5000):
        steered.update(torch.tensor(l0), step)
    assert torch.isfinite(steered.weight(7))


def test_its_state_is_all_it_remembers() -> None:
    one, other = (control(target_l0=3.0, sparsity_warmup_fraction=0.5) for _ in range(2))
    for step in range(3):
        one.update(torch.tensor(5.0 + step), step)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for steered in (one, other):
        for step in range(3, 8):
            steered.update(torch.tensor(4.0), step)
    assert torch.equal(one.weight(7), other.weight(7))


def test_a_target_needs_a_penalty() -> None:
    config = TrainConfig(n_samples=64, learning=LearningConfig(target_l0=3.0))
    with pytest.raises(ValueError, match="TopKSAE has no sparsity penalty"):
        train(TopKSAE(small_config(TopKSAE)), ToySource(), config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "target"),
    [(ReluSAE, 2.0), *((variant, 3.0) for variant in PENALTY_VARIANTS)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_penalty_reaches_its_target_within_10_percent(variant: type[AbstractSAE], target: float) -> None:
    source = ToySource(n_features=24, d_in=16, active=2.4)
    sae = variant(small_config(variant, d_in=16, d_sae=32))
    learning = LearningConfig(target_l0=target)
    train(sae, source, TrainConfig(n_samples=200_000, batch_size=200, preparation_samples=2000, learning=learning))
    x = next(source.stream(4000, seed=1, split="eval")).activations
    assert float((sae.encode(x) != 0).float().sum(1).mean()) == pytest.approx(target, rel=0.1)


def test_a_missed_target_is_said() -> None:
    sae = ReluSAE(small_config(ReluSAE), seed=0)
    learning = LearningConfig(target_l0=1.0, learning_rate=1e-6)
    with pytest.warns(UserWarning, match="target_l0=1 asked, but L0 .* reached"):
        train(sae, ToySource(), TrainConfig(n_samples=100, batch_size=20, preparation_samples=64, learning=learning))


@pytest.mark.parametrize(("n_steps", "l0", "said"), [(1000, 3.5, True), (1000, 3.2, False), (999, 3.5, False)])
def test_a_loss_that_misses_the_l0_it_asks_for_says_so(n_steps: int, l0: float, said: bool) -> None:
    """3.5 is more than 10 % away from 3, 3.2 is not; a short run has had no time."""
    watched = SparsityControl(LearningConfig(), n_steps=n_steps, device=torch.device("cpu"), own_target_l0=3.0)
    for step in range(5):
        watched.update(torch.tensor(l0), step)
    complaint = watched.shortfall()
    assert (complaint is not None and "L0 3 asked by its loss, but L0 3.5 reached" in complaint) is said
    assert float(watched.weight(n_steps)) == 1  # watched, not steered
