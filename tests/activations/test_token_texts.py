"""The text of tokens, against the tokenizers' own files and against the text that was cut."""

import json
from dataclasses import replace

import pytest
from tiny_models import REAL, every_model, loaded, model_folder, tiny_text_file
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sae_toolkit.activations import Text, TextConfig, TransformerSource
from sae_toolkit.activations.cache import CachedSource, build_cache
from sae_toolkit.activations.token_texts import token_texts

SENTENCE = "The cat slept in the garden. It was wild, and wild when the bird sang; why?"


@every_model
def test_a_text_is_its_tokens_put_together(name):
    tokenizer = loaded(name).tokenizer
    texts = token_texts(tokenizer)
    joined = "".join(texts[i] for i in tokenizer(SENTENCE, add_special_tokens=False)["input_ids"])
    assert joined.removeprefix(" ") == SENTENCE  # sentencepiece puts a space before the first word
    assert len(texts) == len(tokenizer)


@pytest.mark.parametrize(("name", "space"), [("tiny", "Ġ"), ("gpt2_mini", "Ġ"), ("stories260K", "▁")])
def test_the_leading_space_is_kept(name, space):
    vocabulary = json.loads((model_folder(name) / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    texts = token_texts(loaded(name).tokenizer)
    starting = {token: i for token, i in vocabulary.items() if token[0] == space and is_word(token[1:])}
    inside = {token: i for token, i in vocabulary.items() if is_word(token)}
    assert min(len(starting), len(inside)) > 20
    assert {token: texts[i] for token, i in starting.items()} == {token: " " + token[1:] for token in starting}
    assert {token: texts[i] for token, i in inside.items()} == {token: token for token in inside}


def is_word(token):
    return token.isascii() and token.isalpha()


def test_all_of_gpt2():
    if not REAL.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    tokenizer = AutoTokenizer.from_pretrained(REAL / "gpt2_tokenizer")
    texts = token_texts(tokenizer)
    assert len(texts) == 50257
    assert [texts[i] for i in (262, 1169, 198, 220, 50256)] == [" the", "the", "\n", " ", "<|endoftext|>"]
    assert texts[tokenizer.convert_tokens_to_ids("â")] == "\ufffd"


def test_word_pieces_lose_their_marks():
    vocabulary = {"[UNK]": 0, "##ing": 1, "walk": 2, "the": 3}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_pieces(vocabulary), unk_token="[UNK]")
    assert token_texts(tokenizer)[1:] == ("ing", " walk", " the")


def word_pieces(vocabulary):
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer


def test_ids_that_nobody_has_read_as_nothing():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 3})))
    assert token_texts(tokenizer) == (" a", "", "", " b")


def test_without_a_plain_token_nothing_is_known():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({" ": 0})))
    assert token_texts(tokenizer) is None


def test_sources_know_them_and_a_cache_alone_does_not(tmp_path):
    model = loaded("tiny")
    text = Text.read(model.tokenizer, TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.3))
    text = Text(text.documents, model.tokenizer, replace(text.config, limit_tokens=600))
    live = TransformerSource(model, text, TransformerSource.Config(hooks=("blocks.0.hook_resid_pre",)))
    assert live.token_texts == token_texts(model.tokenizer)
    assert live.token_texts is live.token_texts  # computed once
    assert build_cache(live, tmp_path / "cache").token_texts == live.token_texts
    assert CachedSource.of(live, tmp_path / "cache").token_texts == live.token_texts
    assert CachedSource(tmp_path / "cache").token_texts is None
