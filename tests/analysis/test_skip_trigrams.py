import math

import pytest
import torch

from sae_toolkit.activations import planted_skip_trigrams
from sae_toolkit.analysis import one_head_losses, skip_trigrams

KEEP, HOLD, IN, AT, MIND, BAY = range(1, 7)
TRIGRAMS = ((KEEP, IN, MIND), (KEEP, AT, BAY))


def losses(weights, trigrams):
    tokens = torch.tensor([[0, source, destination] for source, destination, _ in trigrams])
    logits = weights.logits(tokens)[:, -1].double()
    return [-float(row.log_softmax(0)[output]) for row, (_, _, output) in zip(logits, trigrams, strict=True)]


def test_one_head_must_err_where_the_output_depends_on_the_destination():
    planted = planted_skip_trigrams([TRIGRAMS], n_tokens=8, strength=20.0)
    measured, predicted = losses(planted, TRIGRAMS), one_head_losses(torch.tensor(TRIGRAMS), 20.0, 8)
    assert measured == pytest.approx(predicted.tolist(), abs=1e-5)
    assert measured == pytest.approx([math.log(2)] * 2, abs=1e-6)  # the head cannot tell "in" from "at"
    wrong = planted.logits(torch.tensor([[0, KEEP, IN]]))[0, -1]
    assert float(wrong[BAY]) == pytest.approx(float(wrong[MIND]))  # "keep ... in bay", which nobody asked for


def test_two_heads_need_not():
    apart = planted_skip_trigrams([TRIGRAMS[:1], TRIGRAMS[1:]], n_tokens=8, strength=20.0)
    assert losses(apart, TRIGRAMS) == pytest.approx([0.0, 0.0], abs=1e-5)


def test_predictions_by_hand():
    trigrams = torch.tensor([[1, 2, 3], [1, 4, 3], [5, 2, 6]])  # one output each
    found = one_head_losses(trigrams, 2.0, 8)
    assert found.tolist() == pytest.approx([math.log(1 + 7 * math.exp(-2))] * 3)


def test_tables_name_the_planted_trigrams():
    planted = planted_skip_trigrams([TRIGRAMS, [(HOLD, AT, BAY)]], n_tokens=8, strength=3.0)
    first, second = (skip_trigrams(planted, 0, head, [KEEP, HOLD], n=2) for head in (0, 1))
    assert set(first[0].destinations) == {IN, AT}
    assert set(first[0].outputs) == {MIND, BAY}
    assert first[0].logits == pytest.approx((3 - 6 / 8,) * 2)  # above the mean over 8 outputs
    assert second[1].source == HOLD
    assert second[1].destinations[0] == AT
    assert second[1].outputs[0] == BAY
    assert first[1].logits == pytest.approx((0.0, 0.0))  # this head knows nothing of "hold"
