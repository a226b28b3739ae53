"""A language whose latent variables are known at every token: readable documents, and the exact belief of a reader.

The skeleton is a skip-trigram task: verbs ("kindled") switch things ("lamp") to values ("bright"), so that after a
thing exactly one value may follow. Around it stand variables that are hidden and can only be inferred (topic, mood,
speaker), a number that must be carried across an attractor ("sailor near bakers sings"), and brackets. Every emission
depends on at most one hidden variable, so the joint posterior is a product and forward filtering is exact (Rabiner
1989, A tutorial on hidden Markov models, section III.A).
"""

from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sae_toolkit.ground_truth.lexicon import FILLERS, GOOD_VALUES, N_VALUES, SPEAKERS, Lexicon

PREFERRED = (0.36, 0.27, 0.18, 0.09)
"""How often a topic speaks of its four things; the rest is spread over all others."""


class Slot(IntEnum):
    """What comes next; the rest of the sentence follows from it."""

    NAME = 0
    HEADER = 1
    UNIT = 2
    VALUE = 3
    REACTION = 4
    MARK = 5
    NEAR_OR_VERB = 6
    ATTRACTOR = 7
    VERB = 8


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """How documents are drawn. Shares are probabilities at the start of a unit; what is left speaks of a thing."""

    n_classes: int = 16
    """Things that have values, an even number from 4 to 16; half as many topics."""
    context_length: int = 64
    """Tokens of a document, BOS included."""
    header_events: int = 8
    """Different things switched in the first sentence."""
    event: float = 0.10
    """Share of units that switch a thing, whichever it is."""
    filler: float = 0.12
    """Share of units that are one of the speaker's fillers."""
    report: float = 0.08
    """Share of units with a subject and a verb that agree."""
    open: float = 0.05
    """Share of opened brackets, where fewer than two are open."""
    close: float = 0.25
    """Share of closed brackets, where one is open."""
    stickiness: float = 0.96
    """Probability that topic and mood, each, stay as they are from one unit to the next."""
    fidelity: float = 0.85
    """Probability of the mark that belongs to the mood."""
    reaction: float = 0.3
    """Share of spoken values that somebody reacts to."""

    def __post_init__(self) -> None:
        if self.context_length < 4 or not 1 <= self.header_events <= self.n_classes:
            raise ValueError(
                f"LanguageConfig: context_length={self.context_length}, header_events={self.header_events} given. "
                f"Give a context_length of at least 4 and 1 to n_classes={self.n_classes} header_events."
            )
        shares = (self.event, self.filler, self.report, self.open, self.close)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ValueError(f"LanguageConfig: shares {shares} given. Give shares from 0 on with a sum below 1.")
        if not all(0 < p < 1 for p in (self.stickiness, self.fidelity, self.reaction)):
            raise ValueError("LanguageConfig: stickiness, fidelity and reaction must lie strictly between 0 and 1.")


MAX_DEPTH = 2
GOOD_IN_MOOD = (0.7, 0.3)
"""Probability that an event is good while the speaker is cheerful, gloomy."""
FIRST_VALUE = 0.65
"""Of the two good (bad) values of a thing the first is that much more common."""
NAMED = 0.5
"""Share of documents whose first word is the speaker's name."""
FAVOURITE = 0.75
"""Share of a speaker's fillers that are among the three favourites."""
ATTRACTED = 0.4
"""Share of subjects that stand near another."""


class Parse(NamedTuple):
    """Where each document stands after a token: what any reader knows for certain."""

    slot: Int[Tensor, " n"]
    n_events: Int[Tensor, " n"]
    """Verbs of the header so far."""
    depth: Int[Tensor, " n"]
    """Open brackets."""
    noun: Int[Tensor, " n"]
    """The class spoken of last."""
    setting: Int[Tensor, "n n_classes"]
    """The value of each class, `N_VALUES` while it is ordinary."""
    number: Int[Tensor, " n"]
    """0 singular, 1 plural, of the last subject."""


class Beliefs(NamedTuple):
    """A distribution over each hidden variable, one row per document; one-hot for whoever knows."""

    topic: Float[Tensor, "n n_topics"]
    mood: Float[Tensor, "n 2"]
    """Cheerful, gloomy."""
    speaker: Float[Tensor, "n n_speakers"]


class Language:
    """The grammar as probabilities of the next token, given where a document stands and a belief about what is hidden.

    Given the hidden values it is the generator; given the posterior it is the perfect predictor.
    """

    def __init__(self, config: LanguageConfig | None = None) -> None:
        self.config = LanguageConfig() if config is None else config
        self.lexicon = Lexicon(self.config.n_classes)
        self.n_topics = self.config.n_classes // 2

    @cached_property
    def noun_given_topic(self) -> Float[Tensor, "n_topics n_classes"]:
        """Topic t prefers the four things from 2t on (around the end): each thing is liked by two topics."""
        n = self.config.n_classes
        rest = (1 - sum(PREFERRED)) / (n - len(PREFERRED)) if n > len(PREFERRED) else 0.0
        table = torch.full((self.n_topics, n), rest, dtype=torch.float64)
        for topic in range(self.n_topics):
            for place, share in enumerate(PREFERRED):
                table[topic, (2 * topic + place) % n] = share
        return (table / table.sum(1, keepdim=True)).float()

    @cached_property
    def state_given_mood(self) -> Float[Tensor, "2 n_values"]:
        """Which value an event brings about."""
        within = (FIRST_VALUE, 1 - FIRST_VALUE)
        rows = [[good * w for w in within] + [(1 - good) * w for w in within] for good in GOOD_IN_MOOD]
        return torch.tensor(rows)

    @cached_property
    def mark_given_mood(self) -> Float[Tensor, "2 2"]:
        """The cheerful and the gloomy mark."""
        right = self.config.fidelity
        return torch.tensor([[right, 1 - right], [1 - right, right]])

    @cached_property
    def filler_given_speaker(self) -> Float[Tensor, "n_speakers n_fillers"]:
        """Favourites are equally likely, and so are the others."""
        n_own = len(FILLERS) // len(SPEAKERS)
        table = torch.full((len(SPEAKERS), len(FILLERS)), (1 - FAVOURITE) / (len(FILLERS) - n_own))
        for speaker in range(len(SPEAKERS)):
            table[speaker, n_own * speaker : n_own * (speaker + 1)] = FAVOURITE / n_own
        return table

    @cached_property
    def evidence(self) -> Beliefs:
        """P(token | hidden value, which kind of token comes) of every word, one row each; 1 where it tells nothing."""
        words, ids = len(self.lexicon), self.lexicon.ids
        topic, mood, speaker = torch.ones(words, self.n_topics), torch.ones(words, 2), torch.ones(words, len(SPEAKERS))
        topic[ids("noun")] = self.noun_given_topic.T
        mood[ids("event")] = self.state_given_mood.T.repeat(self.config.n_classes, 1)
        mood[ids("mark")] = self.mark_given_mood.T
        speaker[ids("filler")] = self.filler_given_speaker.T
        speaker[ids("name")][: len(SPEAKERS)] = torch.eye(len(SPEAKERS))
        return Beliefs(topic, mood, speaker)

    def start(self, n: int) -> tuple[Parse, Beliefs]:
        """After BOS: nothing is set, everything hidden is equally likely."""
        zeros = torch.zeros(n, dtype=torch.long)
        setting = torch.full((n, self.config.n_classes), N_VALUES)
        parse = Parse(torch.full((n,), int(Slot.NAME)), zeros, zeros, zeros, setting, zeros)
        sizes = (self.n_topics, 2, len(SPEAKERS))
        return parse, Beliefs(*(torch.full((n, size), 1 / size) for size in sizes))

    def next_token(self, parse: Parse, beliefs: Beliefs) -> Float[Tensor, "n n_words"]:
        """P(next token), exactly."""
        p = torch.zeros(len(parse.slot), len(self.lexicon))
        here = {slot: (parse.slot == slot).nonzero()[:, 0] for slot in Slot}
        ids = self.lexicon.ids
        name = torch.cat([NAMED * beliefs.speaker, torch.full((len(p), 1), 1 - NAMED)], dim=1)
        marks, states = beliefs.mood @ self.mark_given_mood, beliefs.mood @ self.state_given_mood
        p[here[Slot.NAME], ids("name")] = name[here[Slot.NAME]]
        p[here[Slot.HEADER], ids("event")] = self.header(parse.setting, states)[here[Slot.HEADER]]
        p[here[Slot.UNIT]] = self.unit(parse.depth, beliefs, states)[here[Slot.UNIT]]
        values = self.next_value(parse)
        rows = here[Slot.VALUE]
        p[rows, self.lexicon.first["value"] + values[rows]] = 1.0
        p[here[Slot.MARK], ids("mark")] = marks[here[Slot.MARK]]
        rows, reacted = here[Slot.REACTION], self.config.reaction
        p[rows, ids("mark")] = (1 - reacted) * marks[rows]
        p[rows, self.lexicon.first["reaction"] + (values[rows] % N_VALUES >= GOOD_VALUES).long()] = reacted
        verbs = F.one_hot(parse.number, 2).float().repeat_interleave(4, dim=1) / 4
        p[here[Slot.VERB], ids("verb")] = verbs[here[Slot.VERB]]
        rows = here[Slot.NEAR_OR_VERB]
        p[rows, ids("verb")] = (1 - ATTRACTED) * verbs[rows]
        p[rows, ids("near")] = ATTRACTED
        p[here[Slot.ATTRACTOR], ids("subject")] = 1 / self.lexicon.size["subject"]
        return p

    def header(self, setting: Int[Tensor, "n n_classes"], states: Float[Tensor, "n 4"]) -> Float[Tensor, "n n_events"]:
        """Verbs of the first sentence: a thing not switched yet, whichever it is."""
        free = (setting == N_VALUES).float()
        free = free / free.sum(1, keepdim=True).clamp(min=1)
        return (free[:, :, None] * states[:, None, :]).flatten(1)

    def unit(
        self, depth: Int[Tensor, " n"], beliefs: Beliefs, states: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n n_words"]:
        """The first token of a unit."""
        c, ids = self.config, self.lexicon.ids
        p = torch.zeros(len(depth), len(self.lexicon))
        brackets = torch.stack([c.open * (depth < MAX_DEPTH), c.close * (depth > 0)], dim=1)
        p[:, ids("bracket")] = brackets
        p[:, ids("filler")] = c.filler * (beliefs.speaker @ self.filler_given_speaker)
        p[:, ids("event")] = (c.event / c.n_classes * states).repeat(1, c.n_classes)
        p[:, ids("subject")] = c.report / self.lexicon.size["subject"]
        things = 1 - c.filler - c.event - c.report - brackets.sum(1, keepdim=True)
        p[:, ids("noun")] = things * (beliefs.topic @ self.noun_given_topic)
        return p

    def next_value(self, parse: Parse) -> Int[Tensor, " n"]:
        """What the thing spoken of is now, as a number among all values; one more than the last: ordinary."""
        setting = parse.setting.gather(1, parse.noun[:, None])[:, 0]
        return torch.where(setting < N_VALUES, N_VALUES * parse.noun + setting, N_VALUES * self.config.n_classes)

    def read_token(self, parse: Parse, tokens: Int[Tensor, " n"]) -> Parse:
        """Where each document stands one token later."""
        group, number_of, first = self.lexicon.group_of[tokens], self.lexicon.number_of, self.lexicon.first

        def among(name: str) -> Tensor:
            return group == number_of(name)

        def place(name: str, otherwise: Tensor) -> Tensor:
            return torch.where(among(name), tokens - first[name], otherwise)

        event = among("event")
        changed = (tokens - first["event"]).clamp(0, N_VALUES * self.config.n_classes - 1)
        setting = parse.setting.scatter(1, (changed // N_VALUES)[:, None], (changed % N_VALUES)[:, None])
        setting = torch.where(event[:, None], setting, parse.setting)
        in_header = event & (parse.slot == Slot.HEADER)
        n_events = parse.n_events + in_header
        depth = parse.depth + (tokens == first["bracket"]).long() - (tokens == first["bracket"] + 1).long()
        subject = among("subject") & (parse.slot == Slot.UNIT)
        number = torch.where(subject, (tokens - first["subject"]) // 4, parse.number)
        slot = torch.full_like(parse.slot, int(Slot.UNIT))  # after marks, fillers and brackets
        for condition, following in (
            (among("name"), Slot.HEADER),
            (event, Slot.MARK),
            (in_header & (n_events < self.config.header_events), Slot.HEADER),
            (among("noun"), Slot.VALUE),
            (among("value"), Slot.REACTION),
            (among("ordinary") | among("reaction") | among("verb"), Slot.MARK),
            (among("near"), Slot.ATTRACTOR),
            (among("subject"), Slot.VERB),
            (subject, Slot.NEAR_OR_VERB),
        ):
            slot = torch.where(condition, int(following), slot)
        return Parse(slot, n_events, depth, place("noun", parse.noun), setting, number)

    def drift(self, values: Float[Tensor, "n n_hidden"]) -> Float[Tensor, "n n_hidden"]:
        """One step of a sticky chain: it stays, or moves to any other value."""
        stay = self.config.stickiness
        moved = (1 - stay) / (values.shape[1] - 1)
        return (stay - moved) * values + moved

    def update(self, beliefs: Beliefs, parse: Parse, tokens: Int[Tensor, " n"]) -> Beliefs:
        """Bayes' rule with the token, then, where a unit begins, one step of topic and mood; `parse` includes it."""
        posterior = [b * e[tokens] for b, e in zip(beliefs, self.evidence, strict=True)]
        topic, mood, speaker = (p / p.sum(1, keepdim=True) for p in posterior)
        begins = (parse.slot == Slot.UNIT)[:, None]
        return Beliefs(
            torch.where(begins, self.drift(topic), topic), torch.where(begins, self.drift(mood), mood), speaker
        )

    def describe(self) -> dict[str, Any]:
        """Provenance as JSON-ready values."""
        return {"name": "Language", "n_words": len(self.lexicon), **asdict(self.config)}
