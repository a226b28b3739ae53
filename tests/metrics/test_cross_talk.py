import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.cross_talk import CrossTalk
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.saes.relu import ReluSAE
from sae_toolkit.sparse_rows import SparseRows


def score_of(directions, coefficients, sae):
    metric = CrossTalk(directions)
    x, latents = torch.zeros(len(coefficients), directions.shape[1]), torch.ones(len(coefficients), sae.d_sae)
    metric.update(ActivationBatch(x, coefficients=SparseRows.from_dense(coefficients)), SAEOutput(x, latents))
    return metric.compute(sae)["cross_talk_energy"]


ALTERNATING = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 2.0]])


def test_by_hand():
    # G = (1, 0), (.6, .8); both latents read along their feature. Latent 0: own part 1 0 1 0 (variance 1/4), the
    # other's .6 * (0 2 0 2) (variance .36): .36 / .61. Latent 1: own 0 2 0 2 (1), the other's .6 * (1 0 1 0) (.09).
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    score = score_of(directions, ALTERNATING, FixedDictionary(directions, coder=LinearTopK(1)))
    assert score.value == pytest.approx((0.36 / 0.61 + 0.09 / 1.09) / 2)
    assert score.n == 2


def test_an_encoder_that_reads_away_from_the_other_hears_nothing_of_it():
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    sae = ReluSAE(ReluSAE.Config(d_in=2, d_sae=2, normaliser="none"))
    with torch.no_grad():
        sae.W_dec.copy_(directions)
        sae.W_enc.copy_(torch.linalg.inv(directions))  # e_i . G_j = 1 for i = j, else 0
    assert score_of(directions, ALTERNATING, sae).value == pytest.approx(0, abs=1e-12)


def test_it_is_a_plain_loop_over_samples_and_features(features):
    g = torch.Generator().manual_seed(0)
    truth = features[:20, :12] / features[:20, :12].norm(dim=1, keepdim=True)
    coefficients = torch.rand(60, 20, generator=g) * (torch.rand(60, 20, generator=g) < 0.2)
    expected = []
    for p in range(20):
        own, others = [], []
        for sample in coefficients.double():
            parts = [float(c) * float(truth[p].double() @ truth[i].double()) for i, c in enumerate(sample)]
            own.append(parts[p])
            others.append(sum(parts) - parts[p])
        a, b = (float(torch.tensor(v, dtype=torch.float64).var(unbiased=False)) for v in (own, others))
        expected.append(b / (a + b))
    order = torch.randperm(20, generator=g)
    scales = 0.1 + torch.rand(20, 1, generator=g)
    for rows in (truth, (truth * scales)[order]):
        score = score_of(truth, coefficients, FixedDictionary(rows, coder=LinearTopK(1)))
        assert score.value == pytest.approx(sum(expected) / 20, abs=1e-6)


def test_what_is_always_on_is_a_bias_and_no_cross_talk():
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    constant = torch.tensor([[1.0, 5.0], [0.0, 5.0]]).double()
    # latent 0 hears a constant: 0; latent 1's own part never changes, the other's does: 1
    score = score_of(directions, constant, FixedDictionary(directions, coder=LinearTopK(1)))
    assert score.value == pytest.approx(0.5)
