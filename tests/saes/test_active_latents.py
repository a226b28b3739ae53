"""Both forms of active latents against dense autograd: the same numbers, whatever the share that is active."""

import pytest
import torch
from torch import Tensor
from toy import gaussian, toy_batch, working_sae

from sae_toolkit import ReluSAE, TrainingSignals
from sae_toolkit.saes import active_latents
from sae_toolkit.saes.active_latents import each_latent, latents_above, weighted_sums
from sae_toolkit.saes.sparse_ops import sparse_decode
from sae_toolkit.sparse_rows import SparseRows


def leaf(*shape: int, seed: int) -> Tensor:
    return gaussian(*shape, seed=seed).double().requires_grad_()


def weights() -> tuple[Tensor, ...]:
    return leaf(9, 4, seed=1), leaf(4, 7, seed=2), leaf(7, seed=3), leaf(4, seed=4)


@pytest.fixture(params=["dense", "sparse"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Makes every share of active latents count as many, or as few."""
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


def test_weighted_sums(form: type) -> None:
    inputs, norms = weights(), leaf(7, seed=6)
    x, W_enc, b_enc, b_dec = inputs
    sums = weighted_sums(latents_above(*inputs), norms)
    expected = (((x - b_dec) @ W_enc + b_enc).relu() * norms).sum(1)
    torch.testing.assert_close(sums, expected)
    given = torch.autograd.grad(sums.square().sum(), (*inputs, norms))
    for ours, theirs in zip(given, torch.autograd.grad(expected.square().sum(), (*inputs, norms)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradcheck_of_the_sparse_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active_latents, "SPARSE_SHARE", 0.999)
    assert torch.autograd.gradcheck(lambda *inputs: as_dense(latents_above(*inputs)), weights())


def test_few_active_latents_are_stored_sparse_and_many_dense() -> None:
    x, W_enc, b_enc, b_dec = weights()
    assert isinstance(latents_above(x, W_enc, b_enc, b_dec), Tensor)
    assert isinstance(latents_above(x, W_enc, b_enc - 100, b_dec), SparseRows)


@pytest.mark.parametrize("normaliser", ["none", "per_dimension"])
def test_a_relu_sae_has_the_same_loss_and_gradients_in_both_forms(
    normaliser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae, x = working_sae(ReluSAE, normaliser=normaliser).double().train(), toy_batch(40).double()
    signals = TrainingSignals(torch.zeros(16, dtype=torch.bool), torch.tensor(0.7, dtype=torch.float64))
    found = []
    for share in (0.0, 0.999):
        monkeypatch.setattr(active_latents, "SPARSE_SHARE", share)
        sae.zero_grad()
        torch.stack(list(sae.loss_terms(x, sae(x), signals).values())).sum().backward()
        found.append([parameter.grad for parameter in sae.parameters()])
    for dense, sparse in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense)
