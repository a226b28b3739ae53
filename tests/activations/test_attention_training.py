from dataclasses import replace

import pytest
import torch

from sae_toolkit.activations import AttentionTrainConfig, attention_training, new_attention_only, train_attention_only
from sae_toolkit.activations.attention_training import held_out_documents, logits_without_heads, value_follows
from sae_toolkit.activations.language_model import hash_weights
from sae_toolkit.ground_truth import Language, LanguageConfig

TINY = AttentionTrainConfig(
    language=LanguageConfig(n_classes=4, context_length=16, header_events=2, report=0.0, open=0.0, close=0.0),
    d_model=16,
    n_heads=2,
    n_steps=60,
    documents_per_step=32,
    learning_rate=3e-2,
    eval_documents=128,
)


def test_it_learns_and_no_model_beats_a_perfect_reader():
    trained = train_attention_only(TINY)
    assert trained.losses[-1] < trained.losses[0] - 1
    assert trained.entropy < trained.loss < trained.entropy + 1.5
    again = train_attention_only(TINY)
    assert hash_weights(trained.model.state_dict()) == hash_weights(again.model.state_dict())
    assert torch.equal(trained.losses, again.losses)


def test_no_steps_leave_the_model_untrained():
    trained = train_attention_only(replace(TINY, n_steps=0))
    assert hash_weights(trained.model.state_dict()) == hash_weights(new_attention_only(TINY).state_dict())
    assert trained.value_accuracy < 0.3


def test_values_are_asked_for_where_a_thing_was_changed():
    language = Language(TINY.language)
    n_values = language.lexicon.size["value"]
    asked = value_follows(language, torch.tensor([-1, 0, n_values - 1, n_values]))  # the last one is "ordinary"
    assert asked.tolist() == [False, True, True, False]


def test_held_out_documents_are_fixed_and_of_the_language():
    tokens = held_out_documents(TINY)
    assert tokens.shape == (128, 16)
    assert torch.equal(tokens, held_out_documents(replace(TINY, n_steps=5)))
    assert not torch.equal(tokens, held_out_documents(replace(TINY, seed=1)))


def test_heads_are_left_out_document_by_document_and_the_others_speak_up():
    weights = new_attention_only(TINY).requires_grad_(False).weights()
    tokens = held_out_documents(TINY)[:40]
    found = logits_without_heads(weights, tokens, 0.5, torch.Generator().manual_seed(0))
    embedded = weights.embed(tokens)
    of_head = [
        weights.attn_out(0, embedded, weights.pattern(0, embedded) * (torch.arange(2) == head)[:, None, None])
        for head in range(2)
    ]
    seen = set()
    for row in range(40):
        apart = {
            (first, second): float(
                (weights.unembed(embedded[row] + 2 * (first * of_head[0][row] + second * of_head[1][row])) - found[row])
                .abs()
                .max()
            )
            for first in (0, 1)
            for second in (0, 1)
        }
        kept = min(apart, key=apart.get)
        assert apart[kept] < 1e-4
        seen.add(kept)
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}
    whole = logits_without_heads(weights, tokens, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole, weights.logits(tokens))


def test_a_share_that_leaves_no_head_is_refused():
    with pytest.raises(ValueError, match="head_dropout=1"):
        AttentionTrainConfig(head_dropout=1.0)


def test_the_share_of_dropped_heads_falls_to_nothing(monkeypatch):
    asked = []

    def noted(weights, tokens, share, generator):
        asked.append(share)
        return logits_without_heads(weights, tokens, share, generator)

    monkeypatch.setattr(attention_training, "logits_without_heads", noted)
    train_attention_only(replace(TINY, n_steps=4, eval_documents=16, head_dropout=0.4))
    assert asked == pytest.approx([0.4, 0.3, 0.2, 0.1])
