import math
from dataclasses import replace

import pytest
import torch
from tiny_language import TINY

from sae_toolkit.activations import LanguageTrainConfig, ModelConfig, load_model, save_language_model
from sae_toolkit.activations.known_latents import read_language
from sae_toolkit.activations.language_training import (
    language_tokenizer,
    next_token_losses,
    train_language_model,
)
from sae_toolkit.activations.model_hash import hash_weights
from sae_toolkit.ground_truth import Language, as_text, draw_documents


@pytest.fixture(scope="module")
def trained():
    return train_language_model(TINY)


def test_it_learns_and_no_model_beats_a_perfect_reader(trained):
    assert trained.losses[-1] < trained.losses[0] - 1
    assert trained.entropy < trained.loss < trained.entropy + 1.5
    assert trained.gap == trained.loss - trained.entropy


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(trained):
    before = torch.random.get_rng_state()
    again = train_language_model(TINY)
    assert torch.equal(before, torch.random.get_rng_state())
    assert hash_weights(again.module.state_dict()) == hash_weights(trained.module.state_dict())
    other = train_language_model(replace(TINY, seed=1, n_steps=2))
    assert hash_weights(other.module.state_dict()) != hash_weights(trained.module.state_dict())


def test_what_was_saved_is_loaded_like_any_model_in_a_folder(trained, tmp_path):
    folder = save_language_model(trained, TINY, tmp_path / "model")
    model = load_model(ModelConfig(name=str(folder), device="cpu"), offline=True)
    tokens = draw_documents(Language(TINY.language), 3, seed=0).tokens
    with torch.no_grad():
        assert torch.equal(model.logits(tokens), trained.module(input_ids=tokens).logits)
    assert read_language(folder).config == TINY.language
    with pytest.raises(ValueError, match="does not exist"):
        read_language(tmp_path)


def test_the_tokenizer_reads_what_as_text_writes():
    language = Language()
    tokenizer = language_tokenizer(language)
    for document in draw_documents(language, 100, seed=0).tokens.tolist():
        assert tokenizer(as_text(language, document))["input_ids"] == document[1:]
    assert tokenizer("lamp elephant")["input_ids"] == [language.lexicon.first["noun"], tokenizer.unk_token_id]
    assert tokenizer.bos_token_id == 0
    assert tokenizer.eos_token_id is tokenizer.pad_token_id is None


def test_losses_are_those_of_the_token_after(trained):
    tokens = draw_documents(Language(TINY.language), 2, seed=0).tokens
    with torch.no_grad():
        losses = next_token_losses(trained.module, tokens)
        logits = trained.module(input_ids=tokens).logits.double()
    for row in range(2):
        for t in range(15):
            p = logits[row, t].exp() / logits[row, t].exp().sum()
            assert float(losses[row, t]) == pytest.approx(-math.log(float(p[tokens[row, t + 1]])), abs=1e-4)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of n_heads"):
        LanguageTrainConfig(d_model=30)
    with pytest.raises(ValueError, match="at least 1"):
        LanguageTrainConfig(n_steps=0)
