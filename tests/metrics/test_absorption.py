import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.absorption import Absorption
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


def test_independent_pairs_give_next_to_nothing():
    # "children" that have nothing to do with their "parents" but whose latents lean over, latents that miss 1.5 %
    g = torch.Generator().manual_seed(0)
    coefficients = (torch.rand(4000, 6, generator=g) < 0.3).float()
    latents = coefficients * (torch.rand(4000, 6, generator=g) < 0.985)
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5]])
    leaning = torch.eye(6) + 0.2 * torch.eye(6)[torch.arange(6) ^ 1]
    x = torch.zeros(4000, 6)
    metric = Absorption(torch.eye(6), pairs)
    metric.update(ActivationBatch(x, coefficients=SparseRows.from_dense(coefficients)), SAEOutput(x, latents))
    scores = metric.compute(FixedDictionary(leaning, coder=LinearTopK(1)))
    assert 0 < scores["absorption_rate"].value < 0.02
    assert scores["parent_recall_with_child"].value == pytest.approx(0.985, abs=0.01)
