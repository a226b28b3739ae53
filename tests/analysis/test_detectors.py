import torch

from sae_toolkit.analysis import detectors, mean_when_active, rows_or_zero
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.saes.coders import LinearTopK


def test_the_latent_of_each_label_is_found():
    labels = torch.arange(40) % 4
    directions = torch.eye(4)[[2, 0, 3, 1]]  # latent 0 points at label 2, ...
    sae = FixedDictionary(directions, coder=LinearTopK(1))
    found = detectors(sae, 2 * torch.eye(4)[labels], labels, torch.tensor([0, 1, 2, 3, 9]))
    assert found.latent.tolist() == [1, 3, 0, 2, -1]
    assert found.f1[:4].tolist() == [1.0] * 4
    assert bool(found.f1[4].isnan())  # the label never occurs


def test_no_latent_has_a_row_of_zeros():
    rows = rows_or_zero(torch.eye(3), torch.tensor([2, -1]))
    assert rows.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_strengths_are_means_over_the_samples_where_a_latent_fires():
    sae = FixedDictionary(torch.eye(3), coder=LinearTopK(1))
    x = torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    assert mean_when_active(sae, x).tolist() == [2.0, 5.0, 0.0]
