"""AuxK: only dead latents learn from it, and it is the formula of Gao et al. 2024, appendix A.2."""

import pytest
import torch
from torch import Tensor
from toy import VARIANTS, toy_batch, working_sae

from sae_toolkit import AbstractSAE, TopKSAE
from sae_toolkit.saes.auxiliary import auxk_loss, bias_to_fire
from sae_toolkit.saes.latent_rows import LatentRows
from sae_toolkit.saes.rank_selection import SelectingConfig

DEAD = torch.tensor([1, 4, 5, 9, 14])
MASK = torch.zeros(16, dtype=torch.bool).index_fill(0, DEAD, True)


def reference(sae: TopKSAE, x: Tensor, k_aux: int) -> Tensor:
    """e_hat = z W_dec with z the k_aux largest dead pre-activations (ReLU), e = x - x_hat; one sample at a time."""
    total, scale = torch.zeros(()), torch.zeros(())
    for row in x:
        x_n = sae.normaliser.normalise(row)
        pre = (x_n - sae.b_dec) @ sae.W_enc + sae.b_enc
        live = [i for i in pre.argsort(descending=True).tolist()[: sae.config.k] if pre[i] > 0]
        e = x_n - sae.b_dec - sum((pre[i] * sae.W_dec[i] for i in live), torch.zeros(8))
        ranked = sorted(DEAD.tolist(), key=lambda i: -float(pre[i]))[:k_aux]
        e_hat = sum((max(float(pre[i]), 0.0) * sae.W_dec[i] for i in ranked), torch.zeros(8))
        total, scale = total + (e - e_hat).square().sum(), scale + e.square().sum()
    return total / scale


def loss_of(sae: AbstractSAE, x: Tensor, error: Tensor, k_aux: int, dead: LatentRows | None = None) -> Tensor:
    return auxk_loss(dead or LatentRows(sae, DEAD), sae.normaliser.normalise(x) - sae.centre, error, k_aux)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_the_whole_weights(dtype: torch.dtype) -> None:
    """Plain autograd of the formula through the SAE's own parameters, added to gradients that are there already."""
    sae, x = working_sae(TopKSAE).to(dtype).train(), toy_batch(20).to(dtype)
    error = sae.normalised_error(x, sae(x)).detach()
    centred = (sae.normaliser.normalise(x) - sae.b_dec).detach()
    z = (centred @ sae.W_enc + sae.b_enc).relu() * MASK
    expected = (error - z @ sae.W_dec).square().sum() / error.square().sum()
    weights = [sae.W_dec, sae.W_enc, sae.b_enc]
    wanted = torch.autograd.grad(expected, weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    dead = LatentRows(sae, DEAD)
    loss_of(sae, x, error, 512, dead).backward()
    dead.add_gradients_()
    for weight, gradient in zip(weights, wanted, strict=True):
        torch.testing.assert_close(weight.grad, gradient + 1)


@pytest.mark.parametrize("k_aux", [1, 2, 5, 512])
@pytest.mark.parametrize("normaliser", ["none", "mean_scalar", "whitening"])
def test_value_is_the_reference(k_aux: int, normaliser: str) -> None:
    sae, x = working_sae(TopKSAE, normaliser=normaliser), toy_batch(20)
    assert sae.b_dec.abs().min() > 1e-4
    with torch.no_grad():
        ours = loss_of(sae, x, sae.normalised_error(x, sae(x)), k_aux)
        torch.testing.assert_close(ours, reference(sae, x, k_aux), rtol=1e-5, atol=1e-6)


def test_no_dead_latent_gives_zero() -> None:
    sae, x = working_sae(TopKSAE), toy_batch(4)
    nobody = LatentRows(sae, torch.zeros(0, dtype=torch.int64))
    assert float(auxk_loss(nobody, x, torch.ones(4, 8), 3)) == 0


def test_a_perfect_reconstruction_gives_a_finite_loss() -> None:
    sae, x = working_sae(TopKSAE), toy_batch(4)
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
        assert float(loss_of(sae, x, torch.zeros(4, 8), 3)) == 0


SILENCED_BY_A_BIAS = [v for v in VARIANTS if not issubclass(v.Config, SelectingConfig)]


@pytest.mark.parametrize("variant", SILENCED_BY_A_BIAS, ids=lambda variant: variant.__name__)
def test_latents_silenced_by_a_bias_learn_too(variant: type[AbstractSAE]) -> None:
    """Their pre-activations are below 0 everywhere, so that a plain ReLU would leave them without any gradient."""
    sae, x = working_sae(variant).train(), toy_batch(64)
    if variant.tied_encoder:
        pytest.skip("it has no bias")
    with torch.no_grad():
        sae.b_enc[MASK] -= 100
    dead = LatentRows(sae, DEAD)
    loss_of(sae, x, sae.normalised_error(x, sae(x)), 512, dead).backward()
    dead.add_gradients_()
    assert (sae.W_dec.grad[MASK].abs().sum(1) > 0).all()
    assert (sae.b_enc.grad[MASK].abs() > 0).all()
    assert not sae.W_dec.grad[~MASK].any()


def test_the_bias_that_is_lacking() -> None:
    """100 samples, one in fifty is 2: those two come out above 0 when the third largest is raised to it."""
    pre_acts = torch.arange(-100.0, 0.0).unsqueeze(1) + torch.tensor([0.0, 50.0])
    assert bias_to_fire(pre_acts).tolist() == [3.0, 0.0]
