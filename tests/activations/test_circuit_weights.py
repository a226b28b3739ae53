import math

import pytest
import torch

from sae_toolkit.activations import AttentionOnly, random_heads
from sae_toolkit.activations.circuit_weights import Rotary

SIZE = AttentionOnly.Config(d_vocab=7, n_ctx=5, d_model=8, n_layers=2, n_heads=2)
TOKENS = torch.tensor([[0, 3, 6, 1, 2], [5, 5, 0, 4, 1]])


def by_hand(model, tokens):
    """One row of tokens, one head, one pair of tokens at a time."""
    x = [model.W_E[token] for token in tokens]
    for layer in range(model.config.n_layers):
        added = []
        for t in range(len(x)):
            out = torch.zeros(model.config.d_model)
            for head in range(model.config.n_heads):
                W_Q, W_K, W_V, W_O = (W[layer, head] for W in (model.W_Q, model.W_K, model.W_V, model.W_O))
                query = (x[t] + model.W_pos_qk[t]) @ W_Q
                scores = [query @ ((x[s] + model.W_pos_qk[s]) @ W_K) / math.sqrt(W_Q.shape[1]) for s in range(t + 1)]
                weights = torch.stack(scores).softmax(0)
                out = out + sum(weights[s] * (x[s] @ W_V @ W_O) for s in range(t + 1))
            added.append(out)
        x = [a + b for a, b in zip(x, added, strict=True)]
    return torch.stack(x) @ model.W_U


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_logits_are_those_of_loops_over_tokens_and_heads(n_layers):
    model = AttentionOnly(AttentionOnly.Config(**{**vars(SIZE), "n_layers": n_layers}), seed=1)
    expected = torch.stack([by_hand(model, row) for row in TOKENS])
    torch.testing.assert_close(model(TOKENS), expected, atol=1e-5, rtol=1e-5)


def test_attention_is_causal_and_sums_to_one():
    weights = AttentionOnly(SIZE).weights()
    pattern = weights.pattern(0, weights.embed(TOKENS))
    assert pattern.shape == (2, 2, 5, 5)
    assert (pattern.triu(1) == 0).all()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 2, 5))


def test_a_given_pattern_replaces_the_models_own():
    weights = AttentionOnly(SIZE).weights()
    residual = weights.embed(TOKENS)
    to_self = torch.eye(5).expand(2, 2, 5, 5)
    expected = sum(residual @ weights.W_V[1, head] @ weights.W_O[1, head] for head in range(2))
    torch.testing.assert_close(weights.attn_out(1, residual, to_self), expected)


def test_scales_by_hand():
    x = torch.tensor([[3.0, 5.0]])
    heads = random_heads(n_layers=1, n_heads=1, d_model=2, d_head=1, seed=0)
    assert heads.scale(x).item() == 1.0
    assert type(heads)(**{**vars(heads), "norm": "rms"}).scale(x).item() == pytest.approx(math.sqrt(17))
    assert type(heads)(**{**vars(heads), "norm": "layer", "eps": 3.0}).scale(x).item() == 2.0  # variance 1


def test_rotary_scores_depend_on_the_distance_alone():
    angles = torch.arange(6.0)[:, None] * torch.tensor([0.3, 0.3])
    rotary = Rotary(angles.cos(), angles.sin())
    query, key = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([-1.0, 0.5, 1.0])  # the third dimension does not turn
    scores = [float(rotary.turned(query, t + 2) @ rotary.turned(key, t)) for t in range(4)]
    by_angle = math.cos(0.6) * (-1 + 1) + math.sin(0.6) * (1 * 0.5 - 2 * -1) + 5  # q . R(-0.6) k
    assert scores == pytest.approx([by_angle] * 4, abs=1e-5)


def test_the_logits_of_a_model_with_mlps_and_heads_that_do_not_exist_are_refused():
    weights = AttentionOnly(SIZE).weights()
    with pytest.raises(ValueError, match="has MLPs"):
        type(weights)(**{**vars(weights), "has_mlps": True}).logits(TOKENS)
    with pytest.raises(ValueError, match="2 layers of 2 heads"):
        weights.check_head(0, 2)
    with pytest.raises(ValueError, match="at most n_ctx=5"):
        AttentionOnly(SIZE)(torch.zeros(1, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="multiple of n_heads"):
        AttentionOnly.Config(d_vocab=4, n_ctx=4, d_model=9, n_heads=2)


def test_another_precision_changes_numbers_by_rounding_alone():
    weights = AttentionOnly(SIZE).weights()
    double = weights.to(torch.float64)
    assert double.W_pos_qk is not None
    assert double.W_pos_qk.dtype == torch.float64
    torch.testing.assert_close(double.logits(TOKENS).float(), weights.logits(TOKENS), atol=1e-5, rtol=1e-5)
