import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.sparsity import Sparsity
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK

ANY_SAE = FixedDictionary(torch.eye(4), coder=LinearTopK(1))


def scores_of(latents):
    metric = Sparsity()
    x = torch.zeros(len(latents), 1)
    metric.update(ActivationBatch(activations=x), SAEOutput(x, latents))
    return metric, metric.compute(ANY_SAE)


def test_by_hand():
    # L0 per sample: 2, 1, 0, 1: mean 1, variance 1/2; latent 3 is dead, latent 2 fires once in 4
    latents = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, -3.0, 0.0]])
    metric, scores = scores_of(latents)
    assert scores["l0"].value == 1
    assert scores["l0"].n == 4
    assert scores["l0_cv"].value == pytest.approx(0.5**0.5)
    assert metric.firing_rates().tolist() == [0.5, 0.25, 0.25, 0.0]
    assert scores["dead_fraction"].value == scores["rare_fraction"].value == 0.25
    assert scores["dense_fraction"].value == 0.75


def test_dense_is_above_one_tenth():
    latents = torch.zeros(10, 2)
    latents[0, 0] = latents[0, 1] = latents[1, 1] = 1
    assert scores_of(latents)[1]["dense_fraction"].value == 0.5


def test_nothing_fires():
    scores = scores_of(torch.zeros(5, 3))[1]
    assert scores["l0"].value == 0
    assert scores["l0_cv"].value != scores["l0_cv"].value
    assert scores["dead_fraction"].value == 1
