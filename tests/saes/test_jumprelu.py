"""JumpReLU (Rajamanoharan et al. 2024): equations 6, 9, 11 and 12, written out sample by sample."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from toy import ToySource, small_config, toy_batch, working_sae

from sae_toolkit import (
    AbstractSAE,
    JumpReluSAE,
    TanhJumpReluSAE,
    TargetL0JumpReluSAE,
    TrainConfig,
    TrainingSignals,
    train,
)

ALL = (JumpReluSAE, TanhJumpReluSAE, TargetL0JumpReluSAE)
each_variant = pytest.mark.parametrize("variant", ALL, ids=lambda variant: variant.__name__)
SIGNALS = TrainingSignals(torch.arange(16) % 2 == 0, torch.tensor(0.7, dtype=torch.float64))


def working(variant: type[AbstractSAE], **changes: object) -> tuple[AbstractSAE, Tensor]:
    """Thresholds on both sides of 0, b_dec away from it."""
    sae, x = working_sae(variant, **changes).double().train(), toy_batch(40).double()
    with torch.no_grad():
        sae.threshold.copy_(torch.linspace(-0.1, 0.6, 16))
    return sae, x


def pieces(sae: AbstractSAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised input, pre-activations and latents, by the formula."""
    x_n = sae.normaliser.normalise(x)
    pre = (x_n - sae.b_dec) @ sae.W_enc + sae.b_enc
    return x_n, pre, pre * (pre > sae.threshold.clamp_min(0)).double()


def expected_terms(sae: AbstractSAE, x: Tensor) -> list[Tensor]:
    x_n, pre, z = pieces(sae, x)
    mse = (x_n - z @ sae.W_dec - sae.b_dec).square().mean()
    l0 = (pre > sae.threshold.clamp_min(0)).double().sum(-1).mean()
    if isinstance(sae, TargetL0JumpReluSAE):
        return [mse, 0.7 * 10.0 * (l0 / 3.0 - 1) ** 2]
    if isinstance(sae, JumpReluSAE):
        return [mse, 0.7 * 1.0 * l0 / 8]
    return [mse, 0.7 * 1.0 * torch.tanh(1.0 * z * sae.W_dec.norm(dim=1)).sum(-1).mean() / 8]


@each_variant
@pytest.mark.parametrize("normaliser", ["none", "per_dimension", "whitening"])
@pytest.mark.parametrize("shape", [(40, 8), (5, 8, 8)], ids=["rows", "3-D"])
def test_the_loss_is_that_of_the_paper(variant: type[AbstractSAE], normaliser: str, shape: tuple[int, ...]) -> None:
    sae, x = working(variant, normaliser=normaliser)
    x = x.reshape(shape)
    found = list(sae.loss_terms(x, sae(x), SIGNALS).values())
    for mine, theirs in zip(found, expected_terms(sae, x), strict=True):
        torch.testing.assert_close(mine, theirs)


@each_variant
def test_all_but_the_thresholds_get_the_gradient_of_the_formula(variant: type[AbstractSAE]) -> None:
    """H(pre - theta) is a constant for them, so plain autograd of the formula gives the answer."""
    sae, x = working(variant)
    others = [parameter for name, parameter in sae.named_parameters() if name != "threshold"]
    ours = torch.autograd.grad(sum(sae.loss_terms(x, sae(x), SIGNALS).values()), others)
    for mine, theirs in zip(ours, torch.autograd.grad(sum(expected_terms(sae, x)), others), strict=True):
        torch.testing.assert_close(mine, theirs)


@each_variant
def test_thresholds_get_the_pseudo_derivatives(variant: type[AbstractSAE]) -> None:
    """d z / d theta = -theta / eps and d H / d theta = -1 / eps where |pre - theta| < eps / 2; theta < 0 acts as 0."""
    sae, x = working(variant, bandwidth=0.4)
    x_n, pre, z = (piece.detach() for piece in pieces(sae, x))
    z.requires_grad_()
    mse = (x_n - z @ sae.W_dec - sae.b_dec).square().mean()
    tanh = 0.7 * torch.tanh(z * sae.W_dec.norm(dim=1)).sum(-1).mean() / 8
    through_z = torch.autograd.grad(mse + (tanh if isinstance(sae, TanhJumpReluSAE) else 0), z)[0]
    l0 = float((pre > sae.threshold.clamp_min(0)).double().sum(-1).mean())
    slopes = {JumpReluSAE: 0.7 / 8, TargetL0JumpReluSAE: 0.7 * 10 * 2 * (l0 / 3 - 1) / 3}
    per_active = slopes.get(variant, 0.0) / 40
    expected = torch.zeros(16, dtype=torch.float64)
    for i in range(16):
        theta = max(0.0, float(sae.threshold.detach()[i]))
        for b in range(40):
            if abs(float(pre[b, i]) - theta) < 0.2:
                expected[i] -= theta / 0.4 * through_z[b, i] + per_active / 0.4
    (ours,) = torch.autograd.grad(sum(sae.loss_terms(x, sae(x), SIGNALS).values()), [sae.threshold])
    assert expected.abs().max() > 0
    torch.testing.assert_close(ours, expected)


def test_by_hand() -> None:
    """Identity weights, theta = (1, 1, -1): (1.5, 0.5, -0.2) -> (1.5, 0, 0), and (1.0, 2, 0.1) -> (0, 2, 0.1)."""
    sae = JumpReluSAE(JumpReluSAE.Config(d_in=3, d_sae=3, normaliser="none"))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(3))
        sae.threshold.copy_(torch.tensor([1.0, 1.0, -1.0]))
    x = torch.tensor([[1.5, 0.5, -0.2], [1.0, 2.0, 0.1]])
    torch.testing.assert_close(sae.eval().encode(x), torch.tensor([[1.5, 0.0, 0.0], [0.0, 2.0, 0.1]]))


@each_variant
def test_thresholds_move(variant: type[AbstractSAE]) -> None:
    """In 200 steps, from where they start (a peer's log threshold under Adam hardly did)."""
    sae = variant(small_config(variant))
    before = sae.threshold.detach().clone()
    assert before.dtype == torch.float32
    train(sae, ToySource(), TrainConfig(n_samples=200 * 50, batch_size=50, preparation_samples=500))
    assert (sae.threshold - before).abs().median() > 1e-3


@pytest.mark.parametrize(("variant", "field"), [(JumpReluSAE, "l0_coefficient"), (TanhJumpReluSAE, "tanh_coefficient")])
def test_larger_coefficients_give_smaller_l0(variant: type[AbstractSAE], field: str) -> None:
    l0s = []
    for coefficient in (0.1, 1.0, 4.0):
        sae = variant(small_config(variant, **{field: coefficient}))
        train(sae, ToySource(), TrainConfig(n_samples=60_000, batch_size=200, preparation_samples=2000))
        x = next(ToySource().stream(1000, seed=1, split="eval")).activations
        l0s.append(float((sae.encode(x) != 0).float().sum(1).mean()))
    assert all(denser > 1.1 * sparser for denser, sparser in pairwise(l0s)), l0s


@pytest.mark.parametrize("wanted", [2.0, 3.0])
def test_the_l0_it_is_asked_for(wanted: float) -> None:
    source = ToySource(n_features=24, d_in=16, active=2.4)
    sae = TargetL0JumpReluSAE(small_config(TargetL0JumpReluSAE, d_in=16, d_sae=32, wanted_l0=wanted))
    train(sae, source, TrainConfig(n_samples=200_000, batch_size=400, preparation_samples=2000))
    x = next(source.stream(4000, seed=1, split="eval")).activations
    assert float((sae.encode(x) != 0).float().sum(1).mean()) == pytest.approx(wanted, rel=0.1)


@each_variant
def test_a_restarted_latent_gets_a_fresh_threshold(variant: type[AbstractSAE]) -> None:
    sae, _ = working(variant)
    others = sae.threshold.detach().clone()
    sae.restart_(torch.tensor([2, 5]), torch.eye(8).double()[:2], reads=0.2 * torch.eye(8).double()[:2])
    assert sae.threshold[[2, 5]].tolist() == pytest.approx([sae.config.initial_threshold] * 2)
    kept = torch.ones(16, dtype=torch.bool).index_fill(0, torch.tensor([2, 5]), False)
    assert torch.equal(sae.threshold[kept], others[kept])


@each_variant
def test_an_output_of_eval_mode_has_no_loss(variant: type[AbstractSAE]) -> None:
    sae, x = working(variant)
    if variant is TanhJumpReluSAE:
        pytest.skip("its penalty needs the latents alone")
    with pytest.raises(ValueError, match=r"train\(\)"):
        sae.loss_terms(x, sae.eval()(x), SIGNALS)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        (JumpReluSAE, {"l0_coefficient": -1.0}),
        (JumpReluSAE, {"bandwidth": 0.0}),
        (JumpReluSAE, {"initial_threshold": 0.0}),
        (TanhJumpReluSAE, {"tanh_coefficient": -1.0}),
        (TanhJumpReluSAE, {"steepness": 0.0}),
        (TargetL0JumpReluSAE, {"wanted_l0": 17.0}),
        (TargetL0JumpReluSAE, {"l0_coefficient": -1.0}),
    ],
)
def test_impossible_values_are_refused(variant: type[AbstractSAE], changes: dict[str, float]) -> None:
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        small_config(variant, **changes)
