import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.absorption import Absorption, Hedging
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows


def fed(metric, latents, coefficients):
    x = torch.zeros(len(latents), 2)
    batch = ActivationBatch(activations=x, coefficients=SparseRows.from_dense(coefficients))
    metric.update(batch, SAEOutput(x, latents))
    return metric


PARENT_AND_CHILD = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
PAIRS = torch.tensor([[0, 1]])


@pytest.mark.parametrize(("lean", "rate"), [(0.3, 0.5), (0.0, 0.0)])
def test_by_hand(lean, rate):
    # of two samples with both on, the parent's latent misses one, in which the child's fires: absorbed if it leans over
    latents = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    sae = FixedDictionary(torch.tensor([[1.0, 0.0], [lean, 1.0]]), coder=LinearTopK(1))
    scores = fed(Absorption(torch.eye(2), PAIRS), latents, PARENT_AND_CHILD).compute(sae)
    assert scores["absorption_rate"].value == rate
    assert scores["parent_recall_with_child"].value == 0.5
    assert scores["parent_recall_without_child"].value == 1


def test_a_missed_parent_without_a_child_latent_is_not_absorbed():
    latents = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    sae = FixedDictionary(torch.tensor([[1.0, 0.0], [0.3, 1.0]]), coder=LinearTopK(1))
    scores = fed(Absorption(torch.eye(2), PAIRS), latents, PARENT_AND_CHILD).compute(sae)
    assert scores["absorption_rate"].value == 0
    assert scores["parent_recall_without_child"].value == 0.5


def test_hedging_is_the_signed_lean_towards_the_partner():
    # one latent for two features: .8 along its own, .6 along the partner
    sae = FixedDictionary(torch.tensor([[0.8, 0.6]]), coder=LinearTopK(1))
    partners = torch.tensor([1, 0])
    metric = fed(Hedging(torch.eye(2), partners), torch.ones(3, 1), torch.ones(3, 2))
    assert metric.compute(sae)["hedging"].value == pytest.approx(0.6)
    away = FixedDictionary(torch.tensor([[0.8, -0.6]]), coder=LinearTopK(1))
    assert metric.compute(away)["hedging"].value == pytest.approx(-0.6)
