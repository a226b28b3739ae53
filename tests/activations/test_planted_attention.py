import math

import pytest
import torch

from sae_toolkit.activations import planted_skip_trigrams, random_heads, with_planted_composition


def test_a_planted_trigram_is_said_and_nothing_else():
    weights = planted_skip_trigrams([[(1, 2, 3)]], n_tokens=6, strength=5.0)
    logits = weights.logits(torch.tensor([[0, 1, 4, 2], [0, 4, 4, 2], [0, 1, 4, 5]]))
    torch.testing.assert_close(logits[0, -1], 5.0 * torch.eye(6)[3])
    assert logits[1:, -1].abs().max() < 1e-5  # no source, no destination


def test_two_trigrams_of_one_source_in_one_head_are_both_said():
    weights = planted_skip_trigrams([[(1, 2, 3), (1, 4, 5)]], n_tokens=6, strength=5.0)
    logits = weights.logits(torch.tensor([[0, 1, 2]]))[0, -1]
    torch.testing.assert_close(logits, 5.0 * (torch.eye(6)[3] + torch.eye(6)[5]))


def test_token_0_and_unknown_tokens_are_refused():
    for trigram in ((0, 1, 2), (1, 2, 6)):
        with pytest.raises(ValueError, match="Use tokens 1 to 5"):
            planted_skip_trigrams([[trigram]], n_tokens=6, strength=1.0)


def test_the_planted_reader_reads_the_writers_dimensions_alone():
    heads = random_heads(n_layers=2, n_heads=3, d_model=24, d_head=4, seed=0)
    changed = with_planted_composition(heads, "k", (0, 1), (1, 2), seed=0)
    written = heads.W_O[0, 1].double()
    inside = torch.linalg.lstsq(written.T, changed.W_K[1, 2].double()).solution
    torch.testing.assert_close(written.T @ inside, changed.W_K[1, 2].double(), atol=1e-6, rtol=1e-5)
    assert torch.equal(changed.W_K[1, :2], heads.W_K[1, :2])
    assert torch.equal(changed.W_Q, heads.W_Q)
    assert not torch.equal(changed.W_K[1, 2], heads.W_K[1, 2])


def test_random_heads_keep_the_size_of_what_they_read():
    heads = random_heads(n_layers=1, n_heads=2, d_model=400, d_head=400, d_vocab=30, seed=1)
    assert heads.W_E.shape == (30, 400)
    assert float(heads.W_Q.std()) == pytest.approx(1 / math.sqrt(400), rel=0.02)


def test_a_reader_in_the_same_layer_is_refused():
    heads = random_heads(n_layers=2, n_heads=2, d_model=8, d_head=2, seed=0)
    with pytest.raises(ValueError, match="earlier layer"):
        with_planted_composition(heads, "k", (1, 0), (1, 1), seed=0)
    with pytest.raises(ValueError, match="Give q, k or v"):
        with_planted_composition(heads, "o", (0, 0), (1, 1), seed=0)
