import pytest
import torch
from polytopes import tetrahedron

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.encoder_interference import EncoderInterference, reading_directions
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.saes.relu import ReluSAE


def fed(d_sae, d_in):
    metric = EncoderInterference()
    metric.update(ActivationBatch(torch.zeros(1, d_in)), SAEOutput(torch.zeros(1, d_in), torch.ones(1, d_sae)))
    return metric


@pytest.fixture
def sae():
    """Decoder: the axes. Encoder columns: (1, 0) and (.6, .8)."""
    sae = ReluSAE(ReluSAE.Config(d_in=2, d_sae=2, normaliser="none"))
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(2))
        sae.W_enc.copy_(torch.tensor([[1.0, 0.6], [0.0, 0.8]]))
    return sae


def test_by_hand(sae):
    scores = {name: score.value for name, score in fed(2, 2).compute(sae).items()}
    assert scores["encoder_coherence"] == scores["encoder_mean_abs_cosine"] == pytest.approx(0.6)
    assert scores["encoder_mean_squared_cosine"] == pytest.approx(0.36)
    assert scores["encoder_welch_gap"] == pytest.approx(0.6)  # two directions fit in the plane without any overlap
    assert scores["encoder_decoder_cosine"] == pytest.approx((1 + 0.8) / 2)


@pytest.mark.parametrize("normaliser", ["mean_scalar", "per_dimension", "whitening"])
def test_reading_directions_are_the_gradient_of_the_pre_activation(normaliser):
    sae = ReluSAE(ReluSAE.Config(d_in=3, d_sae=5, normaliser=normaliser), seed=1)
    g = torch.Generator().manual_seed(0)
    sae.normaliser.fit_(torch.randn(50, 3, generator=g) * torch.tensor([1.0, 2.0, 5.0]) + 1)
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(3, 5, generator=g))
        sae.b_enc.fill_(100)  # so that every latent fires and the ReLU is out of the way
    x = torch.randn(3, generator=g, requires_grad=True)
    for j, direction in enumerate(reading_directions(sae)):
        (gradient,) = torch.autograd.grad(sae.encode(x)[j], x)
        torch.testing.assert_close(direction.float(), gradient, rtol=1e-4, atol=1e-5)


def test_scale_and_order_of_latents_change_nothing(sae):
    scores = fed(2, 2).compute(sae)
    with torch.no_grad():
        sae.W_enc.copy_(sae.W_enc[:, [1, 0]] * torch.tensor([5.0, 0.1]))
        sae.W_dec.copy_(sae.W_dec[[1, 0]])
    for name, score in fed(2, 2).compute(sae).items():
        assert score.value == pytest.approx(scores[name].value, abs=1e-6), name


def test_a_fixed_dictionary_reads_along_its_rows():
    rows = tetrahedron()
    scores = fed(4, 3).compute(FixedDictionary(rows, coder=LinearTopK(1)))
    assert scores["encoder_coherence"].value == pytest.approx(1 / 3)
    assert scores["encoder_welch_gap"].value == pytest.approx(0, abs=1e-6)
    assert scores["encoder_decoder_cosine"].value == pytest.approx(1)


def test_a_column_of_zeros_reads_nothing_and_overlaps_with_nothing(sae):
    with torch.no_grad():
        sae.W_enc[:, 1] = 0
    scores = fed(2, 2).compute(sae)
    assert scores["encoder_coherence"].value == 0
    assert scores["encoder_decoder_cosine"].value == pytest.approx(0.5)
