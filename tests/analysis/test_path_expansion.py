from dataclasses import replace

import pytest
import torch

from sae_toolkit.activations import AttentionOnly
from sae_toolkit.analysis import expand_paths, losses_by_order, path_error
from sae_toolkit.analysis.path_expansion import freeze, head_paths

TOKENS = torch.tensor([[0, 3, 6, 1, 2, 4], [5, 5, 0, 4, 1, 1]])


def model_of(n_layers, n_heads=2):
    size = AttentionOnly.Config(d_vocab=7, n_ctx=6, d_model=8, n_layers=n_layers, n_heads=n_heads)
    return AttentionOnly(size, seed=n_layers)


def biased(weights, norm):
    """With every bias, positions in the residual stream, and norms."""
    generator = torch.Generator().manual_seed(9)
    drawn = {
        name: torch.randn(vars(weights)[name].shape, generator=generator)
        for name in ("b_Q", "b_K", "b_V", "b_O", "b_U")
    }
    return replace(weights, **drawn, W_pos=torch.randn(6, 8, generator=generator), norm=norm, eps=1e-5)


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_paths_sum_to_the_logits(n_layers):
    model = model_of(n_layers)
    terms = list(expand_paths(model.weights(), TOKENS))
    assert len(terms) == 3**n_layers
    total = sum(term.residual for term in terms) @ model.W_U
    torch.testing.assert_close(total, model(TOKENS), atol=1e-5, rtol=1e-5)
    assert path_error(model.weights(), TOKENS) < 1e-5


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_biases_positions_and_norms_have_paths_of_their_own(norm):
    weights = biased(model_of(2).weights(), norm).to(torch.float64)
    terms = list(expand_paths(weights, TOKENS))
    assert {term.path.start for term in terms} == {"tokens", "positions", "bias 0", "bias 1"}
    total = sum(term.residual for term in terms) @ weights.W_U + weights.b_U
    torch.testing.assert_close(total, weights.logits(TOKENS), atol=1e-9, rtol=1e-9)


def test_a_virtual_head_is_two_patterns_after_another():
    model = model_of(2)
    weights = model.weights().to(torch.float64)
    patterns = freeze(weights, TOKENS).patterns
    term = next(term for term in expand_paths(weights, TOKENS) if term.path.heads == ((0, 1), (1, 0)))
    both = patterns[1][:, 0] @ patterns[0][:, 1]
    W = weights.W_V[0, 1] @ weights.W_O[0, 1] @ weights.W_V[1, 0] @ weights.W_O[1, 0]
    torch.testing.assert_close(term.residual, both @ weights.W_E[TOKENS] @ W)


def test_paths_are_counted():
    found = list(head_paths(2, 3))
    assert len(found) == len(set(found)) == 16
    assert found[:2] == [(), ((0, 0),)]
    assert list(head_paths(2, 3, first=1)) == [(), ((1, 0),), ((1, 1),), ((1, 2),)]
    with pytest.raises(ValueError, match="have 4913 paths"):
        next(expand_paths(sixteen(), TOKENS))


def sixteen():
    size = AttentionOnly.Config(d_vocab=7, n_ctx=6, d_model=16, n_layers=3, n_heads=16)
    return AttentionOnly(size).weights()


def test_losses_by_order_end_with_the_models_own():
    model = model_of(2)
    losses = losses_by_order(model.weights(), TOKENS)
    with torch.no_grad():
        direct = (model.W_E[TOKENS] @ model.W_U)[:, :-1].log_softmax(-1).gather(2, TOKENS[:, 1:, None])
        own = model(TOKENS)[:, :-1].log_softmax(-1).gather(2, TOKENS[:, 1:, None])
    assert len(losses) == 3
    assert losses[0] == pytest.approx(-float(direct.mean()), abs=1e-5)
    assert losses[2] == pytest.approx(-float(own.mean()), abs=1e-5)
