"""A small GPT-2 trained on the known language, saved as Hugging Face saves models, with a tokenizer of its words."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.model_hash import hash_weights
from sae_toolkit.activations.model_loading import import_transformers, quiet
from sae_toolkit.activations.next_token_training import document_batches, losses_after, minimise
from sae_toolkit.config import to_json
from sae_toolkit.ground_truth.language import Language, LanguageConfig
from sae_toolkit.ground_truth.language_documents import draw_documents, read_documents
from sae_toolkit.ground_truth.lexicon import BOS, UNKNOWN
from sae_toolkit.seeding import derived_seed

LANGUAGE_FILE = "known_language.json"
"""Beside the weights: the language, the training, and what came out."""


@dataclass(frozen=True, kw_only=True)
class LanguageTrainConfig:
    """A GPT-2 and how it learns."""

    language: LanguageConfig = LanguageConfig()
    """What it reads."""
    n_layers: int = 2
    """Transformer blocks."""
    n_heads: int = 4
    """Attention heads in each."""
    d_model: int = 32
    """Width of the residual stream: fewer dimensions than the language has features."""
    n_steps: int = 4000
    """Updates, each on documents never seen before."""
    documents_per_step: int = 64
    """Documents of one update."""
    learning_rate: float = 6e-3
    """Highest learning rate of AdamW, after a linear rise and before a decay along a cosine."""
    eval_documents: int = 4096
    """Fresh documents behind the loss and the entropy."""
    seed: int = 0
    """Of weights and documents."""

    def __post_init__(self) -> None:
        sizes = (self.n_layers, self.n_heads, self.n_steps, self.documents_per_step, self.eval_documents)
        if min(sizes) < 1 or self.d_model % self.n_heads:
            raise ValueError(
                f"LanguageTrainConfig: layers, heads, steps, documents {sizes}, d_model={self.d_model} given. All must "
                "be at least 1, and d_model a multiple of n_heads."
            )


class TrainedLanguageModel(NamedTuple):
    """A trained model and how good it is."""

    module: Any
    """A GPT2LMHeadModel in eval mode."""
    losses: Float[Tensor, " n_steps"]
    """Training loss of each step, in nats per token."""
    loss: float
    """Mean next-token loss on fresh documents, in nats."""
    entropy: float
    """What a perfect reader loses on the same documents, in nats."""

    @property
    def gap(self) -> float:
        """Nats per token above a perfect reader."""
        return self.loss - self.entropy


def new_language_model(config: LanguageTrainConfig) -> Any:
    """A freshly initialised GPT-2, without dropout, whose unembedding is its own."""
    transformers = import_transformers("new_language_model")
    language = Language(config.language)
    bos = language.lexicon.first["bos"]
    shape = transformers.GPT2Config(
        vocab_size=len(language.lexicon),
        n_positions=config.language.context_length,
        n_embd=config.d_model,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=bos,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.default_generator.manual_seed(derived_seed(config.seed, "language model weights"))
        return transformers.GPT2LMHeadModel(shape)


def train_language_model(config: LanguageTrainConfig) -> TrainedLanguageModel:
    """AdamW on the next-token loss; the same config gives the same weights on one machine with as many threads."""
    language, module = Language(config.language), new_language_model(config).train()
    seed = derived_seed(config.seed, "language model text")
    batches = document_batches(language, config.documents_per_step, seed=seed)
    losses = minimise(
        module,
        lambda _: next_token_losses(module, next(batches)).mean(),
        n_steps=config.n_steps,
        learning_rate=config.learning_rate,
    )
    module.eval()
    return TrainedLanguageModel(module, losses, *loss_and_entropy(module, config))


def next_token_losses(module: Any, tokens: Int[Tensor, "n context"]) -> Float[Tensor, "n context-1"]:
    """-log P(token | those before it) for every token but the first."""
    return losses_after(module(input_ids=tokens, use_cache=False).logits, tokens)


@torch.no_grad()
def loss_and_entropy(module: Any, config: LanguageTrainConfig) -> tuple[float, float]:
    """Mean loss of a model and of a perfect reader on the same fresh documents."""
    language = Language(config.language)
    seed = derived_seed(config.seed, "language model held-out text")
    tokens = draw_documents(language, config.eval_documents, seed=seed).tokens
    found = [next_token_losses(module, part).double() for part in torch.split(tokens, 256)]
    return float(torch.cat(found).mean()), float(read_documents(language, tokens).nll.double().mean())


def save_language_model(trained: TrainedLanguageModel, config: LanguageTrainConfig, folder: str | Path) -> Path:
    """The folder, with weights, tokenizer and `known_language.json`; it is loaded like any model in a folder."""
    folder = Path(folder)
    with quiet():
        trained.module.save_pretrained(folder)
        language_tokenizer(Language(config.language)).save_pretrained(folder)
    facts = {
        "training": to_json(config),
        "loss": trained.loss,
        "entropy": trained.entropy,
        "weights_sha256": hash_weights(trained.module.state_dict()),
    }
    (folder / LANGUAGE_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return folder


def language_tokenizer(language: Language) -> Any:
    """One token per word of the lexicon, punctuation on its own; any other word is `UNKNOWN`."""
    transformers = import_transformers("language_tokenizer")
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415 - comes with transformers

    words = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(language.lexicon.words)}, unk_token=UNKNOWN)
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BOS, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
