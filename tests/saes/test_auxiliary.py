"""AuxK: only dead latents learn from it, and it is the formula of Gao et al. 2024, appendix A.2."""

import pytest
import torch
from torch import Tensor
from toy import ToySource, small_config, toy_batch, working_sae

from sae_toolkit import BatchTopKSAE, LearningConfig, TopKSAE, TrainConfig, TrainingSignals, train
from sae_toolkit.saes.auxiliary import auxk_loss

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


@pytest.mark.parametrize("k_aux", [1, 2, 5, 512])
@pytest.mark.parametrize("normaliser", ["none", "mean_scalar", "whitening"])
def test_value_is_the_reference(k_aux: int, normaliser: str) -> None:
    sae, x = working_sae(TopKSAE, normaliser=normaliser), toy_batch(20)
    assert sae.b_dec.abs().min() > 1e-4
    with torch.no_grad():
        ours = auxk_loss(sae, x, sae.normalised_error(x, sae(x)), MASK, k_aux)
        torch.testing.assert_close(ours, reference(sae, x, k_aux), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", [TopKSAE, BatchTopKSAE])
def test_live_latents_and_b_dec_get_exactly_no_gradient(variant: type[TopKSAE]) -> None:
    sae, x = working_sae(variant).train(), toy_batch(20)
    sae.loss_terms(x, sae(x), TrainingSignals(MASK, torch.tensor(1.0)))["auxk"].backward()
    assert sae.b_dec.grad is None or not sae.b_dec.grad.any()
    assert not sae.W_dec.grad[~MASK].any()
    assert not sae.W_enc.grad[:, ~MASK].any()
    assert not sae.b_enc.grad[~MASK].any()
    assert sae.W_dec.grad[MASK].abs().sum() > 0
    assert sae.W_enc.grad[:, MASK].abs().sum() > 0
    assert sae.b_enc.grad[MASK].abs().sum() > 0


def test_no_dead_latent_gives_zero() -> None:
    sae, x = working_sae(TopKSAE), toy_batch(4)
    assert float(auxk_loss(sae, x, torch.ones(4, 8), torch.zeros(16, dtype=torch.bool), 3)) == 0


def test_a_perfect_reconstruction_gives_a_finite_loss() -> None:
    sae, x = working_sae(TopKSAE), toy_batch(4)
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
        assert float(auxk_loss(sae, x, torch.zeros(4, 8), MASK, 3)) == 0


@pytest.mark.parametrize("variant", [TopKSAE, BatchTopKSAE])
def test_the_weighted_term_is_the_coefficient_times_the_loss(variant: type[TopKSAE]) -> None:
    x, signals = toy_batch(20), TrainingSignals(MASK, torch.tensor(1.0))
    one, three = (working_sae(variant, aux_coefficient=value) for value in (0.5, 1.5))
    with torch.no_grad():
        terms = [sae.loss_terms(x, sae(x), signals)["auxk"] for sae in (one, three)]
    torch.testing.assert_close(3 * terms[0], terms[1])


@pytest.mark.parametrize("variant", [TopKSAE, BatchTopKSAE])
@pytest.mark.parametrize("changes", [{"k_aux": 0}, {"k_aux": -1}, {"aux_coefficient": -0.1}])
def test_impossible_values_are_refused(variant: type[TopKSAE], changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        small_config(variant, **changes)


@pytest.mark.parametrize("variant", [TopKSAE, BatchTopKSAE])
def test_half_the_latents_forced_dead_come_back(variant: type[TopKSAE]) -> None:
    """Encoder columns at 2 % of their length are never selected; AuxK brings them back, and nothing else does."""
    source = ToySource(n_features=40, d_in=16, active=3)
    x = next(source.stream(4000, seed=0, split="eval")).activations
    shares = []
    for coefficient in (0.0, 1 / 32):
        sae = variant(small_config(variant, d_in=16, d_sae=40, aux_coefficient=coefficient))
        with torch.no_grad():
            sae.W_enc[:, ::2] *= 0.02
        learning = LearningConfig(learning_rate=0.01, dead_after_samples=1200)
        train(sae, source, TrainConfig(n_samples=80_000, batch_size=400, preparation_samples=1000, learning=learning))
        shares.append(float((sae.train().encode(x) == 0).all(0).float().mean()))
    assert shares[0] >= 0.45
    assert shares[1] < 0.05
