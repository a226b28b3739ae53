import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.leakage import Leakage
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

IDENTITY = FixedDictionary(torch.eye(2), coder=LinearTopK(1))


def scores_of(coefficients, latents):
    metric = Leakage(torch.eye(2))
    x = torch.zeros(len(latents), 2)
    batch = ActivationBatch(activations=x, coefficients=SparseRows.from_dense(coefficients))
    metric.update(batch, SAEOutput(x, latents))
    return metric.compute(IDENTITY)


def test_by_hand():
    # latent 0 fires (strength 2) in one of two samples in which only feature 1 is on: rate 1/2, energy 4 / (16 + 4);
    # firing with nothing on (last sample) is no leak. Latent 1 never fires without feature 1: 0 and 0.
    coefficients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    latents = torch.tensor([[4.0, 0.0], [2.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    scores = scores_of(coefficients, latents)
    assert scores["leakage_firing_rate"].value == pytest.approx(0.25)
    assert scores["leakage_energy"].value == pytest.approx(0.1)
    assert scores["leakage_energy"].n == 2


def test_firing_when_nothing_is_on_is_no_leak():
    coefficients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    latents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    scores = scores_of(coefficients, latents)
    assert scores["leakage_firing_rate"].value == scores["leakage_energy"].value == 0


def test_dead_latents_have_no_leakage():
    scores = scores_of(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert scores["leakage_firing_rate"].n == 1
