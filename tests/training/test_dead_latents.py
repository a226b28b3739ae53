"""Dead latents are counted in samples, and a restart touches exactly the latents it names."""

import pytest
import torch
from toy import VARIANTS, ToySource, gaussian, small_config, toy_batch, working_sae

from sae_toolkit import AbstractSAE, LearningConfig, ReluSAE, RevivalConfig, TopKSAE, TrainConfig, train
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows
from sae_toolkit.training.dead_latents import DeadLatents, firing_counts, resample_
from sae_toolkit.training.optimizer import make_optimizer

DEAD = torch.tensor([2, 3, 11])
MASK = torch.zeros(16, dtype=torch.bool).index_fill(0, DEAD, True)


def test_a_latent_is_dead_after_exactly_so_many_silent_samples() -> None:
    dead = DeadLatents(2, dead_after_samples=25, device=torch.device("cpu"))
    fired = torch.tensor([True, False])
    seen = []
    for _ in range(3):
        dead.update(fired, 10)
        seen.append(dead.mask().tolist())
    assert seen == [[False, False], [False, False], [False, True]]  # 10, 20, 30 silent samples
    dead.update(torch.tensor([False, True]), 10)
    assert dead.mask().tolist() == [False, False]


def test_a_restarted_latent_gets_a_full_window() -> None:
    dead = DeadLatents(3, dead_after_samples=10, device=torch.device("cpu"))
    dead.update(torch.tensor([False, False, True]), 10)
    dead.restart(torch.tensor([1]))
    assert dead.mask().tolist() == [True, False, False]


def test_a_selected_zero_is_no_firing() -> None:
    latents = SparseRows(torch.tensor([0.0, 1.5, 0.0, -1]), torch.tensor([0, 1, 2, 1]), torch.tensor([0, 2, 4]), (2, 4))
    assert firing_counts(SAEOutput(torch.zeros(2, 3), latents)).tolist() == [0, 2, 0, 0]
    assert firing_counts(SAEOutput(torch.zeros(2, 3), latents.to_dense())).tolist() == [0, 2, 0, 0]


def stepped(variant: type[AbstractSAE]) -> tuple[AbstractSAE, torch.optim.Optimizer]:
    """An SAE in training with Adam moments everywhere."""
    sae = working_sae(variant).train()
    optimizer = make_optimizer(sae.parameters(), LearningConfig())
    for i, parameter in enumerate(sae.parameters()):
        parameter.grad = gaussian(*parameter.shape, seed=i)
    optimizer.step()
    return sae, optimizer


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_named_latents_change_and_the_others_do_not(variant: type[AbstractSAE]) -> None:
    sae, optimizer = stepped(variant)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    restarted = resample_(sae, optimizer, toy_batch(64), MASK, generator_for(0, "test"))
    assert restarted.tolist() == DEAD.tolist()
    for name, now in sae.state_dict().items():
        if name not in sae.latent_axes:
            assert torch.equal(now, before[name]), name
            continue
        rows, old = (value.movedim(sae.latent_axes[name], 0).reshape(16, -1) for value in (now, before[name]))
        assert [bool(changed) for changed in (rows != old).all(1)] == MASK.tolist(), name
    assert not sae.b_enc[DEAD].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_exactly_the_moments_of_restarted_latents_are_zero(variant: type[AbstractSAE]) -> None:
    sae, optimizer = stepped(variant)
    resample_(sae, optimizer, toy_batch(64), MASK, generator_for(0, "test"))
    for moment in ("exp_avg", "exp_avg_sq"):
        for name, axis in sae.latent_axes.items():
            moments = optimizer.state[sae.get_parameter(name)][moment].movedim(axis, 0).reshape(16, -1)
            assert (moments == 0).all(1).nonzero().squeeze(1).tolist() == DEAD.tolist(), name
        assert optimizer.state[sae.b_dec][moment].all()


@pytest.mark.parametrize(("variant", "scale"), [(TopKSAE, 1.0), (ReluSAE, 0.2)])
def test_a_restarted_latent_points_at_a_badly_reconstructed_sample(variant: type[AbstractSAE], scale: float) -> None:
    sae, optimizer = stepped(variant)
    x = toy_batch(64)
    resample_(sae, optimizer, x, MASK, generator_for(0, "test"))
    centred = sae.normaliser.normalise(x) - sae.b_dec
    cosines = centred / centred.norm(dim=1, keepdim=True) @ sae.W_dec[DEAD].T
    torch.testing.assert_close(cosines.max(0).values, torch.ones(3))
    torch.testing.assert_close(sae.W_dec[DEAD].norm(dim=1), torch.ones(3))
    live_length = sae.W_enc.norm(dim=0)[~MASK].mean()
    torch.testing.assert_close(sae.W_enc.norm(dim=0)[DEAD], (scale * live_length).expand(3))


def test_no_more_latents_restart_than_there_are_samples() -> None:
    sae, optimizer = stepped(TopKSAE)
    every = torch.ones(16, dtype=torch.bool)
    assert resample_(sae, optimizer, toy_batch(5), every, generator_for(0, "test")).tolist() == [0, 1, 2, 3, 4]


def test_nothing_dead_changes_nothing() -> None:
    sae, optimizer = stepped(TopKSAE)
    before = sae.W_dec.clone()
    assert (
        resample_(sae, optimizer, toy_batch(5), torch.zeros(16, dtype=torch.bool), generator_for(0, "t")).numel() == 0
    )
    assert torch.equal(sae.W_dec, before)


def test_resampling_brings_back_latents_that_a_bias_silenced() -> None:
    source = ToySource(n_features=40, d_in=16, active=3)
    x = next(source.stream(4000, seed=0, split="eval")).activations
    shares = []
    for every in (None, 4000):
        sae = ReluSAE(small_config(ReluSAE, d_in=16, d_sae=40, l1_coefficient=0.2))
        with torch.no_grad():
            sae.b_enc[::2] -= 5
        revival = RevivalConfig(dead_after_samples=2000, resample_every_samples=every, auxk_coefficient=0.0)
        learning = LearningConfig(learning_rate=0.01, revival=revival)
        train(sae, source, TrainConfig(n_samples=80_000, batch_size=400, preparation_samples=1000, learning=learning))
        shares.append(float((sae.encode(x) == 0).all(0).float().mean()))
    assert shares[0] > 0.2
    assert shares[1] < 0.05


def test_more_than_5_percent_dead_at_the_end_is_said() -> None:
    sae = ReluSAE(small_config(ReluSAE))
    with torch.no_grad():
        sae.b_enc[:2] -= 1000
    learning = LearningConfig(revival=RevivalConfig(dead_after_samples=1500, auxk_coefficient=0.0))
    config = TrainConfig(n_samples=3000, batch_size=100, preparation_samples=64, learning=learning)
    with pytest.warns(UserWarning, match=r"SAE 'sae': 12% of its latents are dead .* last 1,500 samples"):
        train(sae, ToySource(), config)


def test_up_to_5_percent_dead_and_short_silence_are_not_said() -> None:
    dead = DeadLatents(40, dead_after_samples=100, device=torch.device("cpu"))
    fired = torch.arange(40) >= 2
    dead.update(fired, 5000)
    assert dead.shortfall() is None  # 2 of 40 are 5 %
    dead.update(torch.arange(40) >= 10, 900)
    assert dead.shortfall() is None  # 8 more are dead by the trainer's measure, but silent for 900 samples only
    dead.update(torch.arange(40) >= 10, 100)
    assert dead.shortfall() is not None
