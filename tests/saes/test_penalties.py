"""ReLU SAEs with Lp and tanh penalties, against their formulas at every point of the annealing."""

import pytest
import torch
from torch import Tensor
from toy import check_loss_and_gradients, small_config, toy_batch, working_sae

from sae_toolkit import AbstractSAE, LpSAE, TanhReluSAE, TrainingSignals
from sae_toolkit.saes.penalties import lp_penalty, tanh_penalty, target_l0_penalty

SIGNALS = TrainingSignals(torch.arange(16) % 2 == 0, torch.tensor(0.7, dtype=torch.float64))


def mse_and_sizes(sae: AbstractSAE, x: Tensor) -> tuple[Tensor, Tensor]:
    x_n = sae.normaliser.normalise(x)
    z = ((x_n - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    return (x_n - z @ sae.W_dec - sae.b_dec).square().mean(), z * sae.W_dec.square().sum(1).sqrt()


@pytest.mark.parametrize("shape", [(40, 8), (5, 8, 8)], ids=["rows", "3-D"])
@pytest.mark.parametrize("normaliser", ["none", "whitening"])
def test_tanh(normaliser: str, shape: tuple[int, ...]) -> None:
    sae = working_sae(TanhReluSAE, normaliser=normaliser, steepness=2.0, tanh_coefficient=0.3).double().train()
    x = toy_batch(40).double().reshape(shape)
    mse, sizes = mse_and_sizes(sae, x)
    check_loss_and_gradients(sae, x, SIGNALS, mse + 0.3 * 0.7 * torch.tanh(2 * sizes).sum(-1).mean() / 8)


@pytest.mark.parametrize(("progress", "p"), [(0.0, 1.0), (0.2, 1.0), (0.5, 0.6), (0.8, 0.2), (1.0, 0.2)])
@pytest.mark.parametrize("shape", [(40, 8), (5, 8, 8)], ids=["rows", "3-D"])
def test_lp(progress: float, p: float, shape: tuple[int, ...]) -> None:
    """p is 1 over the first fifth, 0.2 over the last, and in the middle of the run half way: 0.6."""
    sae, x = working_sae(LpSAE, lp_coefficient=0.3).double().train(), toy_batch(40).double().reshape(shape)
    sae.progress = progress
    mse, sizes = mse_and_sizes(sae, x)
    powers = ((sizes + 0.01) ** p - 0.01**p).sum(-1).mean()
    ratio = (sizes.sum() / ((sizes + 0.01) ** p - 0.01**p).sum()).item()
    check_loss_and_gradients(sae, x, SIGNALS, mse + 0.3 * 0.7 * ratio * powers / 8**0.5)


def test_the_size_of_the_lp_penalty_does_not_jump_with_p() -> None:
    sae, x = working_sae(LpSAE).double().train(), toy_batch(40).double()
    found = []
    for progress in (0.0, 0.5, 1.0):
        sae.progress = progress
        found.append(sae.loss_terms(x, sae(x), SIGNALS)["lp"].item())
    assert found == pytest.approx([found[0]] * 3, rel=1e-9)


def test_silent_latents_give_a_finite_loss_and_gradient() -> None:
    sae, x = working_sae(LpSAE).double().train(), toy_batch(40).double()
    with torch.no_grad():
        sae.b_enc.fill_(-1e3)
    torch.stack(list(sae.loss_terms(x, sae(x), SIGNALS).values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in sae.parameters() if p.grad is not None)


def test_penalties_by_hand() -> None:
    """Sizes (0, 3.99) in one sample: p = 1/2 gives sqrt(4) - sqrt(.01) = 1.9; tanh(0) + tanh(3.99)."""
    sizes = torch.tensor([[0.0, 3.99]], dtype=torch.float64)
    assert float(lp_penalty(sizes, 0.5)) == pytest.approx(1.9)
    assert float(tanh_penalty(sizes, 1.0)) == pytest.approx(0.999315, abs=1e-6)
    assert float(target_l0_penalty(torch.tensor(6.0), 4.0)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        (LpSAE, {"lp_coefficient": -1.0}),
        (LpSAE, {"initial_p": 0.0}),
        (LpSAE, {"final_p": 1.5}),
        (TanhReluSAE, {"tanh_coefficient": -1.0}),
        (TanhReluSAE, {"steepness": 0.0}),
    ],
)
def test_impossible_values_are_refused(variant: type[AbstractSAE], changes: dict[str, float]) -> None:
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        small_config(variant, **changes)
