from dataclasses import replace

import torch

from sae_toolkit.activations import AttentionTrainConfig, new_attention_only, train_attention_only
from sae_toolkit.activations.attention_training import held_out_documents, value_follows
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
