"""An attention-only transformer trained on the known language, and how often it says the right value."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.attention_only import AttentionOnly
from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.activations.next_token_training import document_batches, losses_after, minimise
from sae_toolkit.ground_truth.language import Language, LanguageConfig
from sae_toolkit.ground_truth.language_documents import draw_documents, read_documents
from sae_toolkit.seeding import derived_seed, generator_for

ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class AttentionTrainConfig:
    """An attention-only model and how it learns."""

    language: LanguageConfig = LanguageConfig(report=0.0, open=0.0, close=0.0)
    """What it reads; without reports and brackets, which attention alone cannot keep track of."""
    d_model: int = 64
    """Width of the residual stream."""
    n_layers: int = 1
    """Layers of heads."""
    n_heads: int = 4
    """Heads of each layer."""
    n_steps: int = 2500
    """Updates, each on documents never seen before."""
    documents_per_step: int = 64
    """Documents of one update."""
    learning_rate: float = 1e-2
    """Highest learning rate of AdamW."""
    head_dropout: float = 0.3
    """Probability that a document is read without a head: at the first step, falling to 0 at the last."""
    eval_documents: int = 1024
    """Fresh documents behind the losses and the accuracy."""
    seed: int = 0
    """Of weights, documents and dropped heads."""

    def __post_init__(self) -> None:
        if not 0 <= self.head_dropout < 1:
            raise ValueError(
                f"AttentionTrainConfig: head_dropout={self.head_dropout} given. It is the probability that a head is "
                "left out: give one from 0 on and below 1."
            )


SMALL_ATTENTION = AttentionTrainConfig(
    language=LanguageConfig(n_classes=4, context_length=24, header_events=3, report=0.0, open=0.0, close=0.0),
    d_model=32,
    n_steps=300,
    learning_rate=2e-2,
    eval_documents=256,
)
"""Learned in seconds."""


class TrainedAttention(NamedTuple):
    """A trained model and how good it is."""

    model: AttentionOnly
    losses: Float[Tensor, " n_steps"]
    """Training loss of each step, in nats per token."""
    loss: float
    """Mean next-token loss on fresh documents, in nats."""
    entropy: float
    """What a perfect reader loses on them."""
    value_accuracy: float
    """Share of the values of things that somebody changed that get the highest logit of all tokens."""


def new_attention_only(config: AttentionTrainConfig) -> AttentionOnly:
    """Untrained."""
    size = AttentionOnly.Config(
        d_vocab=len(Language(config.language).lexicon),
        n_ctx=config.language.context_length,
        d_model=config.d_model,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
    )
    return AttentionOnly(size, seed=config.seed)


def train_attention_only(config: AttentionTrainConfig) -> TrainedAttention:
    """The same config gives the same weights on one machine with as many threads."""
    model = new_attention_only(config)
    seed = derived_seed(config.seed, "attention-only text")
    batches = document_batches(Language(config.language), config.documents_per_step, seed=seed)

    def loss_of_step(step: int) -> Float[Tensor, ""]:
        tokens = next(batches)
        generator = generator_for(config.seed, "dropped heads", step)
        share = config.head_dropout * (1 - step / config.n_steps)
        logits = logits_without_heads(model.weights(), tokens, share, generator)
        return losses_after(logits, tokens).mean()

    losses = minimise(model, loss_of_step, n_steps=config.n_steps, learning_rate=config.learning_rate)
    return TrainedAttention(model.requires_grad_(False), losses, *measure_reader(model, config))


def logits_without_heads(
    weights: CircuitWeights, tokens: Int[Tensor, "rows ctx"], share: float, generator: torch.Generator
) -> Float[Tensor, "rows ctx d_vocab"]:
    """Logits with each head left out of each row with this probability, the others scaled up by 1 / (1 - share).

    DropHead (Zhou et al. 2020, arXiv 2004.13342). What a head writes for a word it never looks at has no gradient and
    stays as it was drawn; where any head may be missing, all learn to look at every word that matters. A share that
    stays where it is slows learning down, one that falls to 0 does not.
    """
    residual = weights.embed(tokens)
    shape = (weights.n_layers, len(tokens), weights.n_heads, 1, 1)
    kept = (torch.rand(shape, generator=generator) >= share).to(residual) / (1 - share)
    for layer in range(weights.n_layers):
        pattern = weights.pattern(layer, residual) * kept[layer]
        residual = residual + weights.attn_out(layer, residual, pattern)
    return weights.unembed(residual)


@torch.no_grad()
def measure_reader(model: AttentionOnly, config: AttentionTrainConfig) -> tuple[float, float, float]:
    """Loss, entropy and value accuracy on the same fresh documents."""
    language = Language(config.language)
    tokens = held_out_documents(config)
    reading = read_documents(language, tokens)
    asked = value_follows(language, reading.value[:, :-1])
    nll, right = [], []
    for part, at in zip(torch.split(tokens, ROWS_AT_ONCE), torch.split(asked, ROWS_AT_ONCE), strict=True):
        logits = model(part)
        nll.append(losses_after(logits, part).double())
        right.append(logits[:, :-1][at].argmax(-1) == part[:, 1:][at])
    accuracy = float(torch.cat(right).double().mean())
    return float(torch.cat(nll).mean()), float(reading.nll.double().mean()), accuracy


def held_out_documents(config: AttentionTrainConfig) -> Int[Tensor, "documents context"]:
    """Documents that the model of this config was not trained on."""
    seed = derived_seed(config.seed, "attention-only held-out text")
    return draw_documents(Language(config.language), config.eval_documents, seed=seed).tokens


def value_follows(language: Language, value: Int[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
    """Where the next word is the value of a thing that somebody changed, given `Reading.value`."""
    return (value >= 0) & (value < language.lexicon.size["value"])
