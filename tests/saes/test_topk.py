"""TopK SAE against Gao et al. 2024: z = ReLU(TopK((x - b_dec) W_enc + b_enc)), x_hat = z W_dec + b_dec."""

import pytest
import torch
from torch import Tensor
from toy import check_loss_and_gradients, small_config, toy_batch, working_sae

from sae_toolkit import TopKSAE, TrainingSignals

NONE_DEAD = TrainingSignals(torch.zeros(16, dtype=torch.bool), torch.tensor(1.0, dtype=torch.float64))
SOME_DEAD = NONE_DEAD._replace(dead=torch.arange(16) % 2 == 0)


def dense_loss(sae: TopKSAE, x: Tensor, dead: Tensor) -> Tensor:
    """The whole loss with dense tensors and plain autograd."""
    x_n = sae.normaliser.normalise(x)
    pre = (x_n - sae.b_dec) @ sae.W_enc + sae.b_enc
    top = pre.topk(sae.config.k)
    z = torch.zeros_like(pre).scatter(-1, top.indices, top.values).relu()
    error = x_n - (z @ sae.W_dec + sae.b_dec)
    aux_pre = ((x_n - sae.b_dec).detach() @ sae.W_enc + sae.b_enc).masked_fill(~dead, -torch.inf)
    chosen = aux_pre.topk(min(sae.config.k_aux, int(dead.sum())))
    aux = torch.zeros_like(pre).scatter(-1, chosen.indices, chosen.values).relu() @ sae.W_dec
    target = error.detach()
    auxk = (target - aux).square().sum(-1).mean() / target.square().sum(-1).mean()
    return error.square().mean() + (sae.config.aux_coefficient * auxk if dead.any() else 0)


@pytest.mark.parametrize("signals", [NONE_DEAD, SOME_DEAD], ids=["none dead", "half dead"])
@pytest.mark.parametrize("normaliser", ["none", "per_dimension", "whitening"])
def test_loss_and_gradients_are_those_of_the_paper(signals: TrainingSignals, normaliser: str) -> None:
    sae, x = working_sae(TopKSAE, normaliser=normaliser, k_aux=3).double().train(), toy_batch(40).double()
    expected = dense_loss(sae, x, signals.dead)
    check_loss_and_gradients(sae, x, signals, expected)


def test_gradient_reaches_the_input() -> None:
    sae, x = working_sae(TopKSAE).double(), toy_batch(5).double().requires_grad_()
    pre = (sae.normaliser.normalise(x) - sae.b_dec) @ sae.W_enc + sae.b_enc
    top = pre.topk(3)
    z = torch.zeros_like(pre).scatter(-1, top.indices, top.values).relu()
    (expected,) = torch.autograd.grad(sae.normaliser.denormalise(z @ sae.W_dec + sae.b_dec).square().sum(), x)
    (ours,) = torch.autograd.grad(sae(x).reconstruction.square().sum(), x)
    torch.testing.assert_close(ours, expected)


def test_by_hand() -> None:
    """W_enc = identity, b_enc = (0, 0, 1), b_dec = (1, 0, 0), x = (3, -1, 0.5), k = 2.

    pre = (2, -1, 1.5), top 2 = latents 0 and 2, x_hat = (2 + 1, 0, 1.5).
    """
    sae = TopKSAE(TopKSAE.Config(d_in=3, d_sae=3, k=2, normaliser="none"))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(3))
        sae.W_dec.copy_(torch.eye(3))
        sae.b_enc.copy_(torch.tensor([0.0, 0.0, 1.0]))
        sae.b_dec.copy_(torch.tensor([1.0, 0.0, 0.0]))
    out = sae(torch.tensor([3.0, -1.0, 0.5]))
    assert out.dense_latents().tolist() == [2.0, 0.0, 1.5]
    assert out.reconstruction.tolist() == [3.0, 0.0, 1.5]


@pytest.mark.parametrize("k", [1, 3, 16])
def test_at_most_k_latents_are_active_and_none_is_negative(k: int) -> None:
    z = working_sae(TopKSAE, k=k).encode(toy_batch(64))
    assert (z != 0).sum(1).max() <= k
    assert (z >= 0).all()


@pytest.mark.parametrize("k", [0, 17, -1])
def test_an_impossible_k_is_refused_with_both_numbers(k: int) -> None:
    with pytest.raises(ValueError, match=f"k={k} asked, but d_sae=16"):
        small_config(TopKSAE, k=k)
