import math

import pytest
import torch

from sae_toolkit.activations.next_token_training import document_batches, losses_after, minimise, warmed_cosine
from sae_toolkit.ground_truth import Language, LanguageConfig, draw_documents

LANGUAGE = Language(LanguageConfig(n_classes=4, context_length=8, header_events=2))


def test_the_learning_rate_rises_and_falls():
    assert warmed_cosine(0, 100) == pytest.approx(1 / 3)
    assert warmed_cosine(3, 100) == 1.0
    assert warmed_cosine(3 + 97 // 2, 100) == pytest.approx(0.5, abs=0.02)
    assert warmed_cosine(99, 100) < 0.001


def test_a_quadratic_is_minimised_and_every_loss_kept():
    line = torch.nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        line.weight.fill_(3.0)
    steps = []

    def loss(step):
        steps.append(step)
        return (line.weight - 1).square().sum()

    losses = minimise(line, loss, n_steps=200, learning_rate=0.1, weight_decay=0.0)
    assert steps == list(range(200))
    assert losses[0] == 4.0
    assert losses[-1] < 1e-3


def test_documents_come_in_order_and_once():
    batches = document_batches(LANGUAGE, 3000, seed=5)
    found = torch.cat([next(batches), next(batches)])
    assert torch.equal(found, draw_documents(LANGUAGE, 6000, seed=5).tokens)
    many = next(document_batches(LANGUAGE, 5000, seed=5))
    assert torch.equal(many, found[:5000])


def test_losses_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [5.0, 5.0], [9.0, 0.0]]])
    found = losses_after(logits, torch.tensor([[0, 1, 0]]))
    assert found[0].tolist() == pytest.approx([math.log(4 / 3), math.log(2)])
