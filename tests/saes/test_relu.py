"""ReLU SAE: mean squared error + l1 * sum_i z_i ||W_dec_i|| (Conerly et al. 2024)."""

from itertools import pairwise

import pytest
import torch
from toy import ToySource, small_config, toy_batch, working_sae

from sae_toolkit import LearningConfig, ReluSAE, TrainConfig, TrainingSignals, train

SIGNALS = TrainingSignals(torch.zeros(16, dtype=torch.bool), torch.tensor(0.7, dtype=torch.float64))


@pytest.mark.parametrize("normaliser", ["none", "per_dimension", "whitening"])
def test_loss_and_gradients_are_those_of_the_paper(normaliser: str) -> None:
    sae = working_sae(ReluSAE, normaliser=normaliser, l1_coefficient=0.3).double().train()
    x = toy_batch(40).double()
    x_n = sae.normaliser.normalise(x)
    z = ((x_n - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    mse = (x_n - z @ sae.W_dec - sae.b_dec).square().sum(1).mean() / 8
    l1 = 0.3 * 0.7 * (z @ sae.W_dec.square().sum(1).sqrt()).mean() / 8**0.5
    terms = sae.loss_terms(x, sae(x), SIGNALS)
    torch.testing.assert_close(terms["mse"], mse)
    torch.testing.assert_close(terms["l1"], l1)
    parameters = list(sae.parameters())
    ours = torch.autograd.grad(terms["mse"] + terms["l1"], parameters)
    for mine, theirs in zip(ours, torch.autograd.grad(mse + l1, parameters), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_compensated_rescaling_changes_nothing() -> None:
    """Latent i divided by c_i while its decoder row grows by c_i: same loss, same reconstruction."""
    sae, x = working_sae(ReluSAE).double(), toy_batch(40).double()
    before = {"reconstruction": sae(x).reconstruction, **sae.loss_terms(x, sae(x), SIGNALS)}
    factors = torch.linspace(0.1, 10, 16, dtype=torch.float64)
    with torch.no_grad():
        sae.W_dec *= factors.unsqueeze(1)
        sae.W_enc /= factors
        sae.b_enc /= factors
    after = {"reconstruction": sae(x).reconstruction, **sae.loss_terms(x, sae(x), SIGNALS)}
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=name)


def test_the_decoder_norm_is_free() -> None:
    sae = ReluSAE(small_config(ReluSAE))
    train(sae, ToySource(), TrainConfig(n_samples=3200, batch_size=100))
    norms = sae.W_dec.norm(dim=1)
    assert norms.max() - norms.min() > 1e-2  # neither held at 1 nor left where they started


def test_larger_coefficients_give_smaller_l0() -> None:
    l0s = []
    for coefficient in (0.0, 0.2, 1.0):
        sae = ReluSAE(small_config(ReluSAE, l1_coefficient=coefficient))
        train(
            sae, ToySource(), TrainConfig(n_samples=30_000, batch_size=200, learning=LearningConfig(learning_rate=5e-3))
        )
        x = next(ToySource().stream(1000, seed=1, split="eval")).activations
        l0s.append(float((sae.encode(x) != 0).float().sum(1).mean()))
    assert all(denser > 1.15 * sparser for denser, sparser in pairwise(l0s)), l0s


def test_a_negative_coefficient_is_refused() -> None:
    with pytest.raises(ValueError, match="l1_coefficient=-1"):
        small_config(ReluSAE, l1_coefficient=-1.0)
