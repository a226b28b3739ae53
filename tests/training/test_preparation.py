"""What is taken from data before the first step: the geometric median and streams of their own."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from toy import ToySource, gaussian, small_config, toy_batch

from sae_toolkit import TopKSAE, TopKTranscoder
from sae_toolkit.training.preparation import geometric_median, initialise_from_data_, sample_batches


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_geometric_median_minimises_the_summed_distance(seed: int) -> None:
    x = gaussian(60, 4, seed=seed).exp()  # skewed, so that the mean is far off

    def summed_distance(point: np.ndarray) -> float:
        return float(np.linalg.norm(x.double().numpy() - point, axis=1).sum())

    best = minimize(
        summed_distance, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 4000}
    )
    ours = geometric_median(x)
    np.testing.assert_allclose(ours.numpy(), best.x, atol=1e-4)
    assert np.linalg.norm(best.x - x.mean(0).numpy()) > 0.3


def test_geometric_median_ignores_one_outlier() -> None:
    x = torch.zeros(9, 3)
    x[:8] = gaussian(8, 3) * 1e-3
    x[8] = 1e6
    assert geometric_median(x).norm() < 0.01


@pytest.mark.parametrize("n", [1, 2, 50])
def test_geometric_median_of_equal_points_is_that_point(n: int) -> None:
    point = torch.tensor([3.3, -1e4, 0.0])
    torch.testing.assert_close(geometric_median(point.repeat(n, 1)), point)


def test_the_sample_has_the_asked_size_in_whole_batches() -> None:
    batches = list(sample_batches(ToySource(), purpose="a", n_samples=70, batch_size=32, seed=0))
    assert [len(batch) for batch in batches] == [32, 32, 32]


def test_purposes_draw_different_samples_and_none_is_the_training_stream() -> None:
    first, second = (
        next(sample_batches(ToySource(), purpose=purpose, n_samples=1, batch_size=4, seed=0)) for purpose in "ab"
    )
    training = next(ToySource().stream(4, seed=0, split="train")).activations
    assert not torch.equal(first, second)
    assert not torch.equal(first, training)


def test_b_dec_starts_at_the_geometric_median_of_normalised_data() -> None:
    sae, x = TopKSAE(small_config(TopKSAE)), toy_batch(128)
    initialise_from_data_(sae, x)
    torch.testing.assert_close(sae.b_dec, geometric_median(sae.normaliser.normalise(x)))


def test_a_trained_sae_keeps_its_normaliser_and_b_dec() -> None:
    sae = TopKSAE(small_config(TopKSAE))
    initialise_from_data_(sae, toy_batch(128))
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    initialise_from_data_(sae, 5 * toy_batch(128, seed=1))
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items() if name != "threshold")


def test_a_transcoder_starts_by_writing_what_goes_with_what_it_reads() -> None:
    """x takes each of +-e1, +-e2 once, y = (x1, 0, 2 x2); latents read e1, -e1, e2 and nothing.

    cov(ReLU(x1), y) is a multiple of (1, 0, 0), cov(ReLU(-x1), y) of (-1, 0, 0), cov(ReLU(x2), y) of (0, 0, 1).
    """
    sae = TopKTranscoder(
        TopKTranscoder.Config(d_in=2, d_out=3, d_sae=4, k=1, normaliser="none", target_normaliser="none")
    )
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, 0]]))
    untouched = sae.W_dec[3].clone()
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    initialise_from_data_(sae, x, target=x @ torch.tensor([[1.0, 0, 0], [0, 0, 2]]))
    expected = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(sae.W_dec.detach(), torch.cat([expected, untouched.detach()[None]]))
    assert bool(sae.output_normaliser.fitted)
