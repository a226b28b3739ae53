"""Both forms of active latents against dense autograd: the same numbers, whatever the share that is active."""

import pytest
import torch
from torch import Tensor
from toy import gaussian, toy_batch, working_sae

from sae_toolkit import (
    AbstractSAE,
    GatedSAE,
    JumpReluSAE,
    LpSAE,
    ReluSAE,
    TanhJumpReluSAE,
    TanhReluSAE,
    TargetL0JumpReluSAE,
    TrainingSignals,
)
from sae_toolkit.saes import active_latents
from sae_toolkit.saes.active_latents import each_latent, latents_above, mean_total, mean_weighted_total
from sae_toolkit.saes.sparse_ops import sparse_decode
from sae_toolkit.sparse_rows import SparseRows


def leaf(*shape: int, seed: int) -> Tensor:
    return gaussian(*shape, seed=seed).double().requires_grad_()


def weights() -> tuple[Tensor, ...]:
    return leaf(9, 4, seed=1), leaf(4, 7, seed=2), leaf(7, seed=3), leaf(4, seed=4)


@pytest.fixture(params=["dense", "sparse"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Makes every share of active latents count as many, or as few; dense ones are mapped two rows at a time."""
    monkeypatch.setattr(active_latents, "LATENTS_AT_ONCE", 14)
    monkeypatch.setattr(active_latents, "SPARSE_SHARE", 0.0 if request.param == "dense" else 0.999)
    return Tensor if request.param == "dense" else SparseRows


def as_dense(latents: Tensor | SparseRows) -> Tensor:
    return latents.to_dense() if isinstance(latents, SparseRows) else latents


@pytest.mark.parametrize("per_latent", [False, True])
def test_value_and_gradients_are_those_of_the_formula(form: type, per_latent: bool) -> None:
    inputs, weight = weights(), gaussian(9, 7, seed=9).double()
    bound = gaussian(7, seed=5).double() if per_latent else 0.0
    x, W_enc, b_enc, b_dec = inputs
    pre_acts = (x - b_dec) @ W_enc + b_enc
    expected = pre_acts * (pre_acts > bound)
    latents = latents_above(*inputs, bound=bound)
    assert isinstance(latents, form)
    torch.testing.assert_close(as_dense(latents), expected)
    given = torch.autograd.grad((as_dense(latents) ** 2 * weight).sum(), inputs)
    wanted = torch.autograd.grad((expected**2 * weight).sum(), inputs)
    for ours, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_jump_with_a_parameter_for_each_latent(form: type) -> None:
    """z = a_i * p where p > 0.3, 0 elsewhere; latents at 0 stay there although the function would move them."""
    inputs, gain, W_dec = weights(), leaf(7, seed=6), leaf(7, 4, seed=7)
    x, W_enc, b_enc, b_dec = inputs
    pre_acts = (x - b_dec) @ W_enc + b_enc
    expected = torch.where(pre_acts > 0.3, gain * pre_acts + 1, 0.0)
    latents = each_latent(latents_above(*inputs, bound=0.3), lambda p, a: a * p + 1, gain)
    assert isinstance(latents, form)
    decoded = sparse_decode(latents, W_dec) if isinstance(latents, SparseRows) else latents @ W_dec
    given = torch.autograd.grad(decoded.square().sum(), (*inputs, gain, W_dec))
    wanted = torch.autograd.grad((expected @ W_dec).square().sum(), (*inputs, gain, W_dec))
    for ours, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_mean_weighted_total(form: type) -> None:
    inputs, norms = weights(), leaf(7, seed=6)
    x, W_enc, b_enc, b_dec = inputs
    total = mean_weighted_total(latents_above(*inputs), norms)
    expected = (((x - b_dec) @ W_enc + b_enc).relu() * norms).sum(1).mean()
    torch.testing.assert_close(total, expected)
    given = torch.autograd.grad(total.square(), (*inputs, norms))
    for ours, theirs in zip(given, torch.autograd.grad(expected.square(), (*inputs, norms)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradcheck_of_the_sparse_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active_latents, "SPARSE_SHARE", 0.999)
    assert torch.autograd.gradcheck(lambda *inputs: as_dense(latents_above(*inputs)), weights())


def test_few_active_latents_are_stored_sparse_and_many_dense() -> None:
    x, W_enc, b_enc, b_dec = weights()
    assert isinstance(latents_above(x, W_enc, b_enc, b_dec), Tensor)
    assert isinstance(latents_above(x, W_enc, b_enc - 100, b_dec), SparseRows)


PENALISED = (ReluSAE, TanhReluSAE, LpSAE, JumpReluSAE, TanhJumpReluSAE, TargetL0JumpReluSAE, GatedSAE)


@pytest.mark.parametrize("variant", PENALISED, ids=lambda variant: variant.__name__)
@pytest.mark.parametrize("normaliser", ["none", "per_dimension"])
@pytest.mark.parametrize("shape", [(40, 8), (5, 8, 8)], ids=["rows", "3-D"])
def test_an_sae_has_the_same_loss_and_gradients_in_both_forms(
    variant: type[AbstractSAE], normaliser: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = working_sae(variant, normaliser=normaliser).double().train()
    with torch.no_grad():
        sae.b_enc -= 0.5  # so that some pre-activations lie below the widest window
    monkeypatch.setattr(active_latents, "LATENTS_AT_ONCE", 7 * 16)  # blocks that do not divide the 40 rows
    sae.progress, x = 0.5, toy_batch(40).double().reshape(shape)
    signals = TrainingSignals(torch.zeros(16, dtype=torch.bool), torch.tensor(0.7, dtype=torch.float64))
    found = []
    for share, form in ((0.0, Tensor), (0.999, SparseRows)):
        monkeypatch.setattr(active_latents, "SPARSE_SHARE", share)
        sae.zero_grad()
        output = sae(x)
        assert isinstance(output.latent_acts, form)
        terms = sae.loss_terms(x, output, signals)
        torch.stack(list(terms.values())).sum().backward()
        found.append({**terms, **{name: parameter.grad for name, parameter in sae.named_parameters()}})
    for name, dense in found[0].items():
        torch.testing.assert_close(found[1][name], dense, msg=lambda text, name=name: f"{name}: {text}")


def test_thresholds_learn_from_what_is_kept_below_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """theta = .1, eps = .4: of the pre-activations 1, .2, -.05 and -.2 the middle two move theta, by -1/.4 each."""
    sae = JumpReluSAE(JumpReluSAE.Config(d_in=4, d_sae=4, normaliser="none", bandwidth=0.4, l0_coefficient=4.0)).train()
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(4))
    x = torch.tensor([[1.0, 0.2, -0.05, -0.2]])
    for share, form in ((0.0, Tensor), (0.999, SparseRows)):
        monkeypatch.setattr(active_latents, "SPARSE_SHARE", share)
        output = sae(x)
        assert isinstance(output.pre_acts, form)
        assert output.dense_latents().tolist() == [pytest.approx([1.0, 0.2, 0.0, 0.0])]
        signals = TrainingSignals(torch.zeros(4, dtype=torch.bool), torch.tensor(1.0))
        penalty = sae.loss_terms(x, output, signals)["l0_penalty"]
        assert float(penalty.detach()) == 2
        (grad,) = torch.autograd.grad(penalty, [sae.threshold])
        assert grad.tolist() == pytest.approx([0.0, -2.5, -2.5, 0.0])


def test_mean_total(form: type) -> None:
    inputs = weights()
    x, W_enc, b_enc, b_dec = inputs
    expected = ((x - b_dec) @ W_enc + b_enc).relu().sum(1).mean()
    total = mean_total(latents_above(*inputs))
    torch.testing.assert_close(total, expected)
    given = torch.autograd.grad(total, inputs)
    for ours, theirs in zip(given, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)
