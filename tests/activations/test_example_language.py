import json
import subprocess
import sys

import pytest
import torch
from tiny_models import tiny_model, tiny_model_folder, tiny_text_file, tiny_tokenizer

from sae_toolkit.activations import ModelConfig, Text, TextConfig, load_model
from sae_toolkit.activations.example_language import (
    TEMPLATES,
    TOPICS,
    example_document,
    with_examples,
    write_example_model,
    write_example_text,
)

WRITE = """
import sys
from sae_toolkit.activations.example_language import write_example_model, write_example_text
write_example_model(sys.argv[1]), write_example_text(sys.argv[1])
"""


def documents(path):
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_model_has_the_asked_sizes(tmp_path):
    folder = write_example_model(tmp_path / "m", n_layers=3, d_model=16, context=20)
    config = json.loads((folder / "config.json").read_text())
    assert (config["n_layer"], config["n_embd"], config["n_positions"], config["n_head"]) == (3, 16, 20, 2)
    assert config["vocab_size"] == len(tiny_tokenizer())


def test_one_special_token_is_bos_eos_and_pad():
    tokenizer = tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (end, end, end)
    assert tokenizer("one<|endoftext|>two")["input_ids"].count(end) == 1


def test_other_processes_write_the_same_bytes(tmp_path):
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "other")], check=True)
    write_example_model(tmp_path / "here")
    write_example_text(tmp_path / "here")
    assert contents(tmp_path / "here") == contents(tmp_path / "other")


def test_the_seed_changes_weights_and_text(tmp_path):
    a = contents(write_example_model(tmp_path / "a", seed=0))
    b = contents(write_example_model(tmp_path / "b", seed=1))
    assert {name for name in a if a[name] != b[name]} == {"model.safetensors"}
    texts = [write_example_text(tmp_path / str(seed), seed=seed).read_bytes() for seed in (0, 1)]
    assert texts[0] != texts[1]


def test_every_word_of_the_text_is_one_token():
    tokenizer = tiny_tokenizer()
    for document in documents(tiny_text_file()):
        n_marks = sum(document.count(mark) for mark in ".,?")
        assert len(tokenizer(document)["input_ids"]) == len(document.split()) + n_marks


@pytest.mark.parametrize("text", ["The cat slept.", "Zürich, 日本 — 3.5 %\n\ttabs", "  spaces  kept "])
def test_any_text_comes_back_from_its_tokens(text):
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_documents_are_short_numbered_and_different():
    texts = documents(tiny_text_file())
    assert len(texts) == 400
    assert len(set(texts)) == 400
    assert texts[7] == example_document(0, 7)
    lengths = torch.tensor([len(text.split()) for text in texts])
    assert lengths.min() >= 10  # two sentences of at least five words
    assert lengths.max() <= 90  # nine of at most ten


def test_the_words_of_a_document_belong_to_one_topic():
    fixed = {word.strip(".,?") for template in TEMPLATES for word in template.split() if "{" not in word}
    topics = [{word for words in topic.values() for word in words} for topic in TOPICS.values()]
    for text in documents(tiny_text_file()):
        words = {word.strip(".,?") for word in text.split()} - fixed
        assert any(words <= topic for topic in topics), text


def test_a_model_reads_the_text():
    ids = tiny_tokenizer()(documents(tiny_text_file())[0])["input_ids"][:16]
    logits = tiny_model().logits(torch.tensor([ids]))
    assert logits.shape == (1, len(ids), len(tiny_tokenizer()))
    assert logits.isfinite().all()


@pytest.mark.parametrize("sizes", [{"n_layers": 0}, {"d_model": 0}, {"d_model": 12}, {"context": 0}])
def test_impossible_sizes_are_refused(sizes, tmp_path):
    with pytest.raises(ValueError, match="write_example_model"):
        write_example_model(tmp_path, **sizes)


def test_no_documents_are_refused(tmp_path):
    with pytest.raises(ValueError, match="n_documents=0"):
        write_example_text(tmp_path, n_documents=0)


def test_the_folder_is_returned():
    assert (tiny_model_folder() / "tokenizer.json").is_file()


def test_what_is_named_stays_and_what_is_not_named_becomes_an_example(tmp_path):
    given = ModelConfig(name="gpt2"), TextConfig(path="books")
    assert with_examples(*given, tmp_path) == given
    model, text = with_examples(ModelConfig(name=None), TextConfig(path=None, context_length=100), tmp_path)
    loaded = load_model(model)
    assert loaded.max_context == 100
    assert Text.read(loaded.tokenizer, text).window("train", 0).n_rows > 10
