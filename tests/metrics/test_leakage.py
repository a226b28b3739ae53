import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.leakage import Leakage
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

IDENTITY = FixedDictionary(torch.eye(2), coder=LinearTopK(1))


def fed(coefficients, latents):
    metric = Leakage(torch.eye(coefficients.shape[1]))
    x = torch.zeros(len(latents), coefficients.shape[1])
    batch = ActivationBatch(activations=x, coefficients=SparseRows.from_dense(coefficients))
    metric.update(batch, SAEOutput(x, latents))
    return metric


def scores_of(coefficients, latents):
    return fed(coefficients, latents).compute(IDENTITY)


def test_by_hand():
    # latent 0 fires (strength 2) in one of two samples in which only feature 1 is on: rate 1/2, energy 4 / (16 + 4);
    # firing with nothing on (last sample) is no leak. Latent 1 never fires without feature 1: 0 and 0.
    coefficients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    latents = torch.tensor([[4.0, 0.0], [2.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    scores = scores_of(coefficients, latents)
    assert scores["leakage_firing_rate"].value == pytest.approx(0.25)
    assert scores["leakage_energy"].value == pytest.approx(0.1)
    assert scores["leakage_energy"].n == 2
    # latent 0 fires in 1/2 of all samples, so its rate is its base rate: ratio 1; latent 1: 0
    assert scores["leakage_firing_ratio"].value == pytest.approx(0.5)


def test_firing_when_nothing_is_on_is_no_leak():
    coefficients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    latents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    scores = scores_of(coefficients, latents)
    assert scores["leakage_firing_rate"].value == scores["leakage_energy"].value == 0


def test_dead_latents_have_no_leakage():
    scores = scores_of(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert scores["leakage_firing_rate"].n == 1


def test_the_matrix_by_hand():
    # latent 0, its feature off: with feature 1 on (samples 1, 2) it is 2 and 0: mean 1; with feature 2 on (sample 2) 0.
    # Own mean 4: shares 1 / 5 and 0. Latent 1 is 3 with feature 2 alone (sample 3), own mean (1 + 2) / 2: share 2 / 3;
    # feature 0 is on with feature 1 off once, where it is 0. Latent 2 fires with its own feature alone.
    coefficients = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]])
    latents = torch.tensor([[4.0, 0, 0], [2, 1, 0], [0, 2, 5], [0, 3, 1]])
    three = FixedDictionary(torch.eye(3), coder=LinearTopK(1))
    matrix = fed(coefficients, latents).matrix(three)
    assert matrix.own.tolist() == [4, 1.5, 3]
    nan = float("nan")
    expected = [[nan, 0, 0], [1, nan, 0], [0, 3, nan]]
    assert matrix.leaked.tolist() == [pytest.approx(row, nan_ok=True) for row in expected]
    shares = [[nan, 0, 0], [1 / 5, nan, 0], [0, 2 / 3, nan]]
    assert matrix.shares().tolist() == [pytest.approx(row, nan_ok=True) for row in shares]
    # 30 copies are enough samples for a verdict: largest shares 1/5, 2/3 and 0
    scores = fed(coefficients.repeat(30, 1), latents.repeat(30, 1)).compute(three)
    assert scores["leakage_strongest"].value == pytest.approx((1 / 5 + 2 / 3) / 3)


def test_the_matrix_keeps_order_and_latents_of_a_permuted_rescaled_dictionary():
    g = torch.Generator().manual_seed(3)
    coefficients = torch.rand(200, 3, generator=g) * (torch.rand(200, 3, generator=g) < 0.4)
    latents = (coefficients + 0.3 * torch.rand(200, 3, generator=g)).double()
    order, scales = [2, 0, 1], torch.tensor([[2.0], [0.5], [4.0]])
    first = fed(coefficients, latents).matrix(FixedDictionary(torch.eye(3), coder=LinearTopK(1)))
    other = fed(coefficients, latents[:, order] * 7).matrix(
        FixedDictionary(torch.eye(3)[order] * scales, coder=LinearTopK(1))
    )
    assert [order[j] for j in other.latents] == first.latents.tolist()
    assert other.shares() == pytest.approx(first.shares(), nan_ok=True)


def test_a_latent_that_ignores_the_world_fires_at_its_base_rate():
    g = torch.Generator().manual_seed(0)
    coefficients = (torch.rand(4000, 2, generator=g) < 0.3).double()
    latents = (torch.rand(4000, 2, generator=g) < 0.5).double()
    score = scores_of(coefficients, latents)["leakage_firing_ratio"]
    assert score.value == pytest.approx(1, abs=0.1)  # 3 standard errors of a rate over 840 samples, relative to it


def test_no_matched_latent_gives_an_empty_matrix():
    matrix = fed(torch.eye(2), torch.zeros(2, 2)).matrix(IDENTITY)
    assert matrix.shares().shape == (2, 0)
