import math

import numpy as np
import pytest
import torch

from sae_toolkit.activations import AttentionOnly, random_heads
from sae_toolkit.analysis import Factored, copying_score, copying_scores, positivity, random_copying_scores


def test_a_copying_matrix_scores_one_and_its_negative_minus_one():
    W = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert positivity(Factored(W, W.T)) == pytest.approx(1.0)
    assert positivity(Factored(W, -W.T)) == pytest.approx(-1.0)
    assert math.isnan(positivity(Factored(torch.zeros(3, 2), torch.zeros(2, 3))))


def test_eigenvalues_plus_and_minus_one_and_a_rotation_cancel_by_hand():
    both = Factored(torch.eye(2), torch.diag(torch.tensor([1.0, -1.0])))
    assert positivity(both) == pytest.approx(0.0)
    turn = Factored(torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))  # eigenvalues i and -i
    assert positivity(turn) == pytest.approx(0.0, abs=1e-12)
    assert positivity(Factored(torch.eye(2), torch.diag(torch.tensor([3.0, -1.0])))) == pytest.approx(0.5)


def test_a_heads_score_is_that_of_its_whole_token_circuit():
    model = AttentionOnly(AttentionOnly.Config(d_vocab=30, n_ctx=4, d_model=8, n_layers=2, n_heads=2), seed=0)
    W = [w.detach().double().numpy() for w in (model.W_E, model.W_V[1, 0], model.W_O[1, 0], model.W_U)]
    eigenvalues = np.linalg.eigvals(W[0] @ W[1] @ W[2] @ W[3])
    expected = eigenvalues.real.sum() / np.abs(eigenvalues).sum()
    assert copying_score(model.weights(), 1, 0) == pytest.approx(expected, abs=1e-6)
    assert float(copying_scores(model.weights())[1, 0]) == pytest.approx(expected, abs=1e-6)


def test_random_heads_score_zero_and_scatter_as_published():
    found = random_copying_scores(64, 16, 300, torch.Generator().manual_seed(0))
    assert abs(float(found.mean())) < 4 * 0.107 / 300**0.5
    assert float(found.std()) == pytest.approx(0.107, abs=0.015)
    heads = random_heads(n_layers=1, n_heads=8, d_model=64, d_head=16, d_vocab=100, seed=0)
    assert float(copying_scores(heads).abs().max()) < 0.45
