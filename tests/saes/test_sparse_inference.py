"""A trained dictionary with a coder: the same interface, the SAE's own units, better latents."""

import pytest
import torch
from scipy.optimize import nnls
from toy import NORMALISERS, toy_batch, working_sae

from sae_toolkit import ReluSAE, SparseInference, TopKSAE, TrainConfig, train
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import dataset_a
from sae_toolkit.metrics import evaluate
from sae_toolkit.saes import LinearTopK, MatchingPursuit, NonnegativeLasso, NonnegativeLeastSquares

CODERS = [LinearTopK(3), MatchingPursuit(3), NonnegativeLasso(0.1), NonnegativeLeastSquares()]
each_coder = pytest.mark.parametrize("coder", CODERS, ids=lambda coder: type(coder).__name__)


@each_coder
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_decode_of_encode_is_forward_and_rows_are_alone(coder: object, normaliser: str) -> None:
    inference, x = SparseInference(working_sae(TopKSAE, normaliser=normaliser).double(), coder), toy_batch(12).double()
    out = inference.forward(x.reshape(3, 4, 8))
    assert out.reconstruction.shape == (3, 4, 8)
    latents = inference.encode(x)
    torch.testing.assert_close(out.dense_latents().reshape(12, 16), latents, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(inference.decode(latents), out.reconstruction.reshape(12, 8), atol=1e-9, rtol=1e-6)
    alone = torch.cat([inference.encode(row.unsqueeze(0)) for row in x])
    torch.testing.assert_close(alone, latents, atol=1e-9, rtol=1e-6)
    assert (latents >= 0).all()


@torch.no_grad()
def test_latents_are_in_the_units_of_the_sae() -> None:
    """Decoder rows of any length: what a linear read-out finds is (x - b_dec) . d / ||d||^2 for the largest of them."""
    sae, x = working_sae(ReluSAE, normaliser="none"), toy_batch(1)[0]
    contributions = [float((x - sae.b_dec) @ d / d.norm()) for d in sae.W_dec]
    best = max(range(16), key=contributions.__getitem__)
    expected = torch.zeros(16)
    expected[best] = contributions[best] / float(sae.W_dec[best].norm())
    torch.testing.assert_close(SparseInference(sae, LinearTopK(1)).encode(x), expected)


@torch.no_grad()
def test_least_squares_is_scipy_s() -> None:
    """On normalised activations around b_dec; the dictionary is overcomplete, so the residual is compared."""
    sae, x = working_sae(TopKSAE, normaliser="per_dimension").double(), toy_batch(6).double()
    latents = SparseInference(sae, NonnegativeLeastSquares(n_iterations=5000)).encode(x)
    centred = (sae.normaliser.normalise(x) - sae.b_dec).detach()
    for row, z in zip(centred, latents, strict=True):
        _, best = nnls(sae.W_dec.detach().T.numpy(), row.numpy())
        assert float((row - z @ sae.W_dec).norm()) == pytest.approx(best, abs=1e-3)


def test_a_dead_row_is_never_used() -> None:
    sae = working_sae(TopKSAE)
    with torch.no_grad():
        sae.W_dec[3] = 0.0
    for coder in CODERS:
        latents = SparseInference(sae, coder).encode(toy_batch(20))
        assert torch.isfinite(latents).all()
        assert not latents[:, 3].any()


def test_pursuit_stops_where_nothing_large_is_left() -> None:
    """x = 3 e_0 + 2 e_1 + 0.4 e_2 with smallest = 0.5: two latents, although five steps were allowed."""
    coder, x = MatchingPursuit(5, smallest=0.5), torch.tensor([[3.0, 2.0, 0.4, 0.0, 0.0], [0.4, 0.0, 0.0, 0.0, 0.0]])
    found = coder.encode(x, torch.eye(5)).to_dense()
    torch.testing.assert_close(found, torch.tensor([[3.0, 2.0, 0.0, 0.0, 0.0], [0.0] * 5]))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="smallest=-1"):
        MatchingPursuit(3, smallest=-1.0)
    with pytest.raises(ValueError, match="n_iterations=0"):
        NonnegativeLeastSquares(0)


@pytest.mark.slow
def test_it_lifts_a_trained_dictionary() -> None:
    """World A, a short run: the SAE's own latents score an F1 near .75, pursuit with a stop at least .93."""
    source = SuperpositionSource(dataset_a(seed=0))
    sae = TopKSAE(TopKSAE.Config(d_in=64, d_sae=256, k=6))
    train(sae, source, TrainConfig(n_samples=300_000, batch_size=512))
    pair = {"own": sae, "pursuit": SparseInference(sae, MatchingPursuit(12, smallest=0.8))}
    scores = evaluate(pair, source, n_samples=2000)
    assert scores["own"]["activation_f1"].value < 0.8
    assert scores["pursuit"]["activation_f1"].value > 0.93
