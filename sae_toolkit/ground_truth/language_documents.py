"""Documents of the known language: drawn, written as plain text, and read back with a perfect reader's beliefs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sae_toolkit.ground_truth.language import Beliefs, Language, Parse, Slot
from sae_toolkit.ground_truth.lexicon import GOOD_VALUES, N_VALUES, SPEAKERS
from sae_toolkit.seeding import generator_for

DOCUMENTS_AT_ONCE = 4096
"""Documents drawn together, so that document n is the same however many are asked for."""


class Corpus(NamedTuple):
    """Documents and what was hidden in them: `topic` and `mood` are those that the next token is drawn with."""

    tokens: Int[Tensor, "n context"]
    topic: Int[Tensor, "n context"]
    mood: Int[Tensor, "n context"]
    speaker: Int[Tensor, " n"]


class Reading(NamedTuple):
    """What can be known after each token of some documents."""

    nll: Float[Tensor, "n context-1"]
    """-log P(next token | tokens so far) of a perfect reader, in nats: its mean is the entropy rate of the language."""
    slot: Int[Tensor, "n context"]
    """What comes next, as a `Slot`."""
    depth: Int[Tensor, "n context"]
    number: Int[Tensor, "n context"]
    """0 singular, 1 plural while a verb must agree; -1 otherwise."""
    value: Int[Tensor, "n context"]
    """The value that comes next (the last one: ordinary); -1 where no value does."""
    tone: Int[Tensor, "n context"]
    """0 good, 1 bad, of the value that comes next or was just said; -1 where there is none."""
    topic: Float[Tensor, "n context n_topics"]
    """Posterior of the topic that the next token is drawn with; `mood` and `speaker` likewise."""
    mood: Float[Tensor, "n context 2"]
    speaker: Float[Tensor, "n context n_speakers"]


def draw_documents(language: Language, n_documents: int, *, seed: int, first: int = 0) -> Corpus:
    """Documents number `first` to `first + n_documents` of a seed."""
    if n_documents < 1 or first < 0:
        raise ValueError(f"draw_documents: n_documents={n_documents}, first={first} asked; at least 1, from 0 on.")
    blocks = range(first // DOCUMENTS_AT_ONCE, -(-(first + n_documents) // DOCUMENTS_AT_ONCE))
    drawn = [draw_block(language, seed, block) for block in blocks]
    chosen = slice(first % DOCUMENTS_AT_ONCE, first % DOCUMENTS_AT_ONCE + n_documents)
    return Corpus(*(torch.cat(parts)[chosen] for parts in zip(*drawn, strict=True)))


def draw_block(language: Language, seed: int, block: int) -> Corpus:
    """Token by token, all documents of the block at a time."""
    n, generator = DOCUMENTS_AT_ONCE, generator_for(seed, "language documents", block)

    def draw(p: Tensor) -> Tensor:
        # the inverse of the cumulated distribution, in float64, so that nothing impossible is ever drawn
        cumulated = p.double().cumsum(1)
        uniform = torch.rand(n, 1, generator=generator, dtype=torch.float64) * cumulated[:, -1:]
        return torch.searchsorted(cumulated, uniform, right=True)[:, 0]

    def known(*hidden: Tensor) -> Beliefs:
        sizes = (language.n_topics, 2, len(SPEAKERS))
        return Beliefs(*(F.one_hot(h, size).float() for h, size in zip(hidden, sizes, strict=True)))

    parse, prior = language.start(n)
    topic, mood, speaker = (draw(p) for p in prior)
    tokens, topics, moods = [torch.full((n,), language.lexicon.first["bos"])], [topic], [mood]
    for _ in range(language.config.context_length - 1):
        hidden = known(topic, mood, speaker)
        tokens.append(draw(language.next_token(parse, hidden)))
        parse = language.read_token(parse, tokens[-1])
        begins = parse.slot == Slot.UNIT
        topic = torch.where(begins, draw(language.drift(hidden.topic)), topic)
        mood = torch.where(begins, draw(language.drift(hidden.mood)), mood)
        topics.append(topic)
        moods.append(mood)
    return Corpus(torch.stack(tokens, 1), torch.stack(topics, 1), torch.stack(moods, 1), speaker)


def read_documents(language: Language, tokens: Int[Tensor, "n context"]) -> Reading:
    """The exact posterior after every token, by forward filtering; the documents must start with BOS."""
    if (tokens[:, 0] != language.lexicon.first["bos"]).any():
        raise ValueError(
            f"read_documents: first tokens {sorted(set(tokens[:, 0].tolist()))} given, but each must be BOS."
        )
    parse, beliefs = language.start(len(tokens))
    seen = [known_after(parse, beliefs, language)]
    nll = []
    for position in range(1, tokens.shape[1]):
        following = tokens[:, position]
        p = language.next_token(parse, beliefs).gather(1, following[:, None])[:, 0]
        if (p == 0).any():
            document = int((p == 0).nonzero()[0])
            raise ValueError(
                f"read_documents: document {document} is not of this language: "
                f"{language.lexicon.words[int(following[document])]!r} cannot stand at position {position}."
            )
        nll.append(-p.log())
        parse = language.read_token(parse, following)
        beliefs = language.update(beliefs, parse, following)
        seen.append(known_after(parse, beliefs, language))
    return Reading(torch.stack(nll, 1), *(torch.stack(column, 1) for column in zip(*seen, strict=True)))


def known_after(parse: Parse, beliefs: Beliefs, language: Language) -> tuple[Tensor, ...]:
    """One position of a `Reading`, without the likelihood."""
    value = language.next_value(parse)
    speaks = parse.slot == Slot.VALUE
    of_value = (speaks | (parse.slot == Slot.REACTION)) & (value < language.lexicon.size["value"])
    agrees = (parse.slot == Slot.NEAR_OR_VERB) | (parse.slot == Slot.ATTRACTOR) | (parse.slot == Slot.VERB)
    return (
        parse.slot,
        parse.depth,
        torch.where(agrees, parse.number, -1),
        torch.where(speaks, value, -1),
        torch.where(of_value, (value % N_VALUES >= GOOD_VALUES).long(), -1),
        *beliefs,
    )


def as_text(language: Language, tokens: Sequence[int]) -> str:
    """A document as a person writes it: without BOS, marks and brackets close to their words."""
    words = [language.lexicon.words[token] for token in tokens if token != language.lexicon.first["bos"]]
    return re.sub(r"\( ", "(", re.sub(r" ([.!)])", r"\1", " ".join(words)))


def write_documents(language: Language, path: str | Path, *, n_documents: int, seed: int) -> Path:
    """A .jsonl for people: each document as plain text, its speaker, its topics and moods from token to token."""
    corpus = draw_documents(language, n_documents, seed=seed)
    lines = [
        json.dumps(
            {
                "text": as_text(language, tokens.tolist()),
                "speaker": SPEAKERS[int(speaker)],
                "topic": topic.tolist(),
                "mood": ["cheerful" if value == 0 else "gloomy" for value in mood.tolist()],
            }
        )
        for tokens, topic, mood, speaker in zip(*corpus, strict=True)
    ]
    path = Path(path)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
