"""Gated SAE (Rajamanoharan et al. 2024): equations 6 to 8, and the frozen decoder of the auxiliary path."""

import pytest
import torch
from toy import check_loss_and_gradients, small_config, toy_batch, working_sae

from sae_toolkit import GatedSAE, TrainingSignals

SIGNALS = TrainingSignals(torch.arange(16) % 2 == 0, torch.tensor(0.7, dtype=torch.float64))


@pytest.mark.parametrize("normaliser", ["none", "per_dimension", "whitening"])
@pytest.mark.parametrize("shape", [(40, 8), (5, 8, 8)], ids=["rows", "3-D"])
def test_loss_and_gradients_are_those_of_the_paper(normaliser: str, shape: tuple[int, ...]) -> None:
    sae = working_sae(GatedSAE, normaliser=normaliser, l1_coefficient=0.3).double().train()
    x = toy_batch(40).double().reshape(shape)
    x_n = sae.normaliser.normalise(x)
    gate = (x_n - sae.b_dec) @ sae.W_enc + sae.b_enc
    magnitude = (x_n - sae.b_dec) @ (sae.W_enc * sae.r_mag.exp()) + sae.b_mag
    z = (gate > 0) * magnitude.relu()
    mse = (x_n - z @ sae.W_dec - sae.b_dec).square().mean()
    frozen = gate.relu() @ sae.W_dec.detach() + sae.b_dec.detach()
    l1 = 0.3 * 0.7 * gate.relu().sum(-1).mean() / 8**0.5
    check_loss_and_gradients(sae, x, SIGNALS, mse + l1 + (x_n - frozen).square().mean())


def test_the_auxiliary_path_never_trains_the_decoder() -> None:
    sae, x = working_sae(GatedSAE).double().train(), toy_batch(40).double()
    terms = sae.loss_terms(x, sae(x), SIGNALS)
    grads = torch.autograd.grad(terms["gate_mse"] + terms["l1"], [sae.W_enc, sae.b_enc, sae.W_dec], allow_unused=True)
    assert grads[0].abs().sum() > 0
    assert grads[1].abs().sum() > 0
    assert grads[2] is None


def test_by_hand() -> None:
    """W_enc = 1, b_enc = -1, r_mag = log 2, b_mag = 0.5: x = 3 -> gate 2 > 0, z = 2 * 3 + 0.5; x = 0.9 -> gate < 0."""
    sae = GatedSAE(GatedSAE.Config(d_in=1, d_sae=1, normaliser="none"))
    with torch.no_grad():
        sae.W_enc.fill_(1.0)
        sae.b_enc.fill_(-1.0)
        sae.r_mag.fill_(2.0).log_()
        sae.b_mag.fill_(0.5)
    torch.testing.assert_close(sae.eval().encode(torch.tensor([[3.0], [0.9]])), torch.tensor([[6.5], [0.0]]))


def test_a_restarted_latent_gets_fresh_gain_and_bias() -> None:
    sae = working_sae(GatedSAE)
    sae.restart_(torch.tensor([2, 5]), torch.eye(8)[:2], reads=0.2 * torch.eye(8)[:2])
    for parameter in (sae.r_mag, sae.b_mag):
        assert parameter[[2, 5]].tolist() == [0, 0]
        assert parameter[[0, 1, 3, 4]].all()


def test_a_negative_coefficient_is_refused() -> None:
    with pytest.raises(ValueError, match="l1_coefficient=-1"):
        small_config(GatedSAE, l1_coefficient=-1.0)
