"""A tiny language model and a text it can read, made offline: for trying things out and for tests, not for science."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sae_toolkit.activations.model_loading import ModelConfig, import_transformers, quiet
from sae_toolkit.activations.text import TextConfig
from sae_toolkit.seeding import generator_for

END_OF_TEXT = "<|endoftext|>"

TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "garden": {
        "noun": ("cat", "dog", "bird", "tree", "flower", "fence", "bee", "gardener", "rose", "hedge"),
        "verb": ("slept", "waited", "grew", "sang", "hid", "rested"),
        "place": ("garden", "grass", "shade", "orchard", "meadow"),
        "adjective": ("green", "small", "sunny", "quiet", "wild"),
    },
    "sea": {
        "noun": ("ship", "sailor", "captain", "wave", "whale", "storm", "gull", "anchor", "sail", "pilot"),
        "verb": ("sailed", "sank", "drifted", "rolled", "turned", "vanished"),
        "place": ("harbour", "ocean", "deck", "island", "bay"),
        "adjective": ("deep", "salty", "cold", "blue", "rough"),
    },
    "kitchen": {
        "noun": ("cook", "soup", "bread", "knife", "oven", "apple", "kettle", "baker", "pie", "spoon"),
        "verb": ("boiled", "burned", "cooled", "waited", "smelled", "stood"),
        "place": ("kitchen", "table", "pot", "pantry", "stove"),
        "adjective": ("warm", "fresh", "sweet", "hungry", "hot"),
    },
    "town": {
        "noun": ("judge", "merchant", "street", "carriage", "clerk", "market", "lady", "bell", "window", "lamp"),
        "verb": ("closed", "opened", "argued", "shone", "rang", "stopped"),
        "place": ("square", "court", "shop", "church", "station"),
        "adjective": ("busy", "rich", "narrow", "proud", "old"),
    },
}
"""What a document can be about. Its words come from one topic, so that neighbours tell what a token is near."""

TEMPLATES = (
    "The {adjective} {noun} {verb} in the {place}.",
    "A {noun} and a {noun} {verb} near the {adjective} {place}.",
    "In the {place}, the {noun} was {adjective}.",
    "It was {adjective} and {adjective} when the {noun} {verb}.",
    "Every {noun} of the {place} {verb}, but one {noun} did not.",
    "Why was the {noun} so {adjective}? The {noun} {verb}.",
)


def write_example_model(
    folder: str | Path, *, n_layers: int = 2, d_model: int = 32, context: int = 64, seed: int = 0
) -> Path:
    """A randomly initialised GPT-2 with its tokenizer, as Hugging Face saves them; returns the folder.

    One attention head per 8 dimensions; `context` is the longest input in tokens. The tokenizer knows every word of
    `write_example_text` as one token and any other text as bytes; `<|endoftext|>` is bos, eos and pad.
    """
    if min(n_layers, d_model, context) < 1 or d_model % 8:
        raise ValueError(
            f"write_example_model: n_layers={n_layers}, d_model={d_model}, context={context} asked. All must be at "
            "least 1 and d_model a multiple of 8, the width of a head."
        )
    transformers = import_transformers("write_example_model")
    tokenizer = example_tokenizer()
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context,
        n_embd=d_model,
        n_layer=n_layers,
        n_head=d_model // 8,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.default_generator.manual_seed(seed)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return Path(folder)


def example_tokenizer() -> Any:
    """Byte-level BPE learned from the words of the grammar alone, so that it is the same on every call."""
    transformers = import_transformers("example_tokenizer")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - comes with transformers

    words = {word for topic in TOPICS.values() for kind in topic.values() for word in kind}
    fixed = {word.strip(".,?") for template in TEMPLATES for word in template.split() if "{" not in word}
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # far more than the words need: learning ends when every word is one token
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    spellings = [(word if word[0].isupper() else " " + word) for word in sorted(words | fixed)]
    spellings += [" " + word for word in sorted(fixed) if word[0].isupper()]
    bpe.train_from_iterator(spellings, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def write_example_text(folder: str | Path, *, n_documents: int = 400, seed: int = 0) -> Path:
    """`text.jsonl`: short documents of 2 to 9 English-like sentences, each about one topic; returns the file."""
    if n_documents < 1:
        raise ValueError(f"write_example_text: n_documents={n_documents} asked, but at least 1 is needed.")
    path = Path(folder) / "text.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": example_document(seed, number)}) + "\n" for number in range(n_documents)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def example_document(seed: int, number: int) -> str:
    """One document of the grammar; it depends on its number and the seed alone."""
    generator = generator_for(seed, "example document", number)

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    topic = TOPICS[sorted(TOPICS)[draw(len(TOPICS))]]
    sentences = []
    for _ in range(2 + draw(8)):
        sentence = TEMPLATES[draw(len(TEMPLATES))]
        for kind, words in topic.items():
            while "{" + kind + "}" in sentence:
                sentence = sentence.replace("{" + kind + "}", words[draw(len(words))], 1)
        sentences.append(sentence)
    return " ".join(sentences)


def with_examples(model: ModelConfig, text: TextConfig, folder: str | Path) -> tuple[ModelConfig, TextConfig]:
    """The same choices, with the example model and text, written into `folder`, where no model or text is named."""
    if model.name is None:
        context = max(64, text.context_length)
        model = replace(model, name=str(write_example_model(Path(folder) / "example_model", context=context)))
    if text.path is None:
        text = replace(text, path=str(write_example_text(Path(folder) / "example_text")))
    return model, text
