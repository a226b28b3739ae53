"""TopK SAE against Gao et al. 2024: z = ReLU(TopK((x - b_dec) W_enc + b_enc)), x_hat = z W_dec + b_dec."""

import pytest
import torch
from torch import Tensor
from toy import ToySource, check_loss_and_gradients, small_config, toy_batch, working_sae

from sae_toolkit import AbstractSAE, TopKSAE, TrainConfig, TrainingSignals, train

SIGNALS = TrainingSignals(torch.zeros(16, dtype=torch.bool), torch.tensor(1.0, dtype=torch.float64))


def dense_loss(sae: TopKSAE, x: Tensor, k: int) -> Tensor:
    """The whole loss with dense tensors and plain autograd."""
    x_n = sae.normaliser.normalise(x)
    pre = (x_n - sae.b_dec) @ sae.W_enc + sae.b_enc
    top = pre.topk(k)
    z = torch.zeros_like(pre).scatter(-1, top.indices, top.values).relu()
    error = x_n - (z @ sae.W_dec + sae.b_dec)
    return error.square().mean()


@pytest.mark.parametrize("normaliser", ["none", "per_dimension", "whitening"])
@pytest.mark.parametrize("shape", [(40, 8), (5, 8, 8)], ids=["rows", "3-D"])
def test_loss_and_gradients_are_those_of_the_paper(normaliser: str, shape: tuple[int, ...]) -> None:
    sae, x = working_sae(TopKSAE, normaliser=normaliser).double().train(), toy_batch(40).double().reshape(shape)
    check_loss_and_gradients(sae, x, SIGNALS, dense_loss(sae, x, 3))


@pytest.mark.parametrize(("progress", "k"), [(0.0, 11), (0.25, 7), (0.499, 3), (0.5, 3), (0.9, 3), (1.0, 3)])
def test_k_moves_to_its_value_over_the_first_half(progress: float, k: int) -> None:
    """From 11 to 3: at a quarter of the run, half way through the annealing, it is 7."""
    sae, x = working_sae(TopKSAE, initial_k=11).double().train(), toy_batch(40).double()
    sae.progress = progress
    check_loss_and_gradients(sae, x, SIGNALS, dense_loss(sae, x, k))
    assert (sae.eval().encode(x) != 0).sum(1).max() <= 3  # inference is never annealed


def test_the_trainer_tells_the_progress() -> None:
    seen = []

    class Watched(TopKSAE):
        def loss_terms(self, x, output, signals):  # type: ignore[no-untyped-def]
            seen.append((self.progress, output.sparse_latents().values.numel() / len(x)))
            return super().loss_terms(x, output, signals)

    sae = Watched(small_config(TopKSAE, initial_k=11))
    del AbstractSAE.variants["Watched"]
    train(sae, ToySource(), TrainConfig(n_samples=320, batch_size=40, preparation_samples=64))
    assert seen == [(0, 11), (0.125, 9), (0.25, 7), (0.375, 5), (0.5, 3), (0.625, 3), (0.75, 3), (0.875, 3)]
    assert sae.progress == 1


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


@pytest.mark.parametrize("name", ["k", "initial_k"])
@pytest.mark.parametrize("k", [0, 17, -1])
def test_an_impossible_k_is_refused_with_both_numbers(name: str, k: int) -> None:
    with pytest.raises(ValueError, match=f"^{name}={k} asked, but d_sae=16"):
        small_config(TopKSAE, **{name: k})
