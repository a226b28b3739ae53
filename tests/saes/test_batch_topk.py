"""BatchTopK (Bussmann et al. 2024): batch * k latents per batch in training, one calibrated threshold at inference."""

import pytest
import torch
from torch import Tensor
from toy import check_loss_and_gradients, gaussian, small_config, toy_batch, working_sae

from sae_toolkit import BatchTopKSAE, TrainingSignals


def dense_loss(sae: BatchTopKSAE, x: Tensor, k: int) -> Tensor:
    """The whole loss with dense tensors and plain autograd."""
    x_n = sae.normaliser.normalise(x)
    pre = ((x_n - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    smallest_kept = pre.detach().flatten().sort(descending=True).values[k * len(x) - 1]
    error = x_n - ((pre * (pre >= smallest_kept)) @ sae.W_dec + sae.b_dec)
    return error.square().mean()


SIGNALS = TrainingSignals(torch.arange(16) % 2 == 0, torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("normaliser", ["none", "per_dimension", "whitening"])
def test_loss_and_gradients_are_those_of_the_paper(normaliser: str) -> None:
    sae, x = working_sae(BatchTopKSAE, normaliser=normaliser).double().train(), toy_batch(40).double()
    check_loss_and_gradients(sae, x, SIGNALS, dense_loss(sae, x, 3))


def test_k_is_annealed_in_training_alone() -> None:
    """From 7 to 3: at a quarter of the run 5. The calibrated threshold is for 3 whenever it is fitted."""
    sae, x = working_sae(BatchTopKSAE, initial_k=7).double().train(), toy_batch(40).double()
    sae.progress = 0.25
    check_loss_and_gradients(sae, x, SIGNALS, dense_loss(sae, x, 5))
    sae.calibrate_([x])
    assert int((sae.eval().encode(x) != 0).sum()) == 3 * 40


def test_training_keeps_exactly_k_per_sample_on_average() -> None:
    z = working_sae(BatchTopKSAE).train().encode(toy_batch(64))
    assert int((z != 0).sum()) == 3 * 64
    assert (z != 0).sum(1).unique().numel() > 1  # not k for each


def test_training_keeps_the_largest_of_the_whole_batch() -> None:
    sae, x = working_sae(BatchTopKSAE), toy_batch(64)
    kept = sae.train().encode(x)
    everything = working_sae(BatchTopKSAE, k=16).train().encode(x)
    assert kept[kept > 0].min() >= everything[kept == 0].max()


def test_fewer_where_fewer_are_positive() -> None:
    sae = working_sae(BatchTopKSAE).train()
    with torch.no_grad():
        sae.b_enc.fill_(-1e3)
    assert not sae.encode(toy_batch(8)).any()


@pytest.mark.parametrize("splits", [[256], [1] * 256, [100, 100, 56]], ids=["whole", "single rows", "uneven"])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_calibrated_threshold_gives_exactly_k(splits: list[int], k: int) -> None:
    """Over the calibration data, however it was batched and although some samples need far more latents than others."""
    sae = working_sae(BatchTopKSAE, k=k)
    x = toy_batch(256, seed=7) * torch.linspace(0.1, 5, 256).unsqueeze(1)
    sae.calibrate_(x.split(splits))
    assert int((sae.encode(x) != 0).sum()) == k * 256


def test_all_latents_fire_where_k_is_all_and_all_are_positive() -> None:
    sae = working_sae(BatchTopKSAE, k=16)
    with torch.no_grad():
        sae.b_enc.fill_(100.0)
    sae.calibrate_([toy_batch(32)])
    assert int((sae.encode(toy_batch(32)) != 0).sum()) == 16 * 32


def test_where_too_few_are_positive_the_threshold_is_zero() -> None:
    sae = working_sae(BatchTopKSAE)
    with torch.no_grad():
        sae.b_enc.fill_(-1e3)
    sae.calibrate_([toy_batch(32)])
    assert float(sae.threshold) == 0


def test_a_row_does_not_flip_when_the_batch_size_changes() -> None:
    """Wide enough for matrix products of other shapes to round otherwise; a threshold on a data value flips."""
    sae = BatchTopKSAE(BatchTopKSAE.Config(d_in=512, d_sae=768, k=8))
    x = gaussian(384, 512, seed=3)
    sae.normaliser.fit_(x)
    sae.calibrate_([x])
    sae.eval()
    whole = sae.encode(x) != 0
    for size in (1, 5, 37):
        parts = torch.cat([sae.encode(part) for part in x.split(size)])
        assert torch.equal(parts != 0, whole)


def test_uncalibrated_inference_is_refused() -> None:
    sae = BatchTopKSAE(small_config(BatchTopKSAE)).eval()
    with pytest.raises(ValueError, match="calibrate_"):
        sae.encode(toy_batch(4))


def test_calibration_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        BatchTopKSAE(small_config(BatchTopKSAE)).calibrate_([])


def test_calibration_changes_nothing_else() -> None:
    sae = working_sae(BatchTopKSAE)
    before = {name: value.clone() for name, value in sae.state_dict().items() if name != "threshold"}
    sae.calibrate_([toy_batch(32, seed=5)])
    assert all(torch.equal(sae.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("k", [0, 17])
def test_an_impossible_k_is_refused_with_both_numbers(k: int) -> None:
    with pytest.raises(ValueError, match=f"k={k} asked, but d_sae=16"):
        small_config(BatchTopKSAE, k=k)
