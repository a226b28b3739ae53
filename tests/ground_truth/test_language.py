"""The grammar against enumeration: every hidden path of short documents, with probabilities written down anew."""

import itertools
import json
import math

import pytest
import torch

from sae_toolkit.ground_truth import Language, LanguageConfig, as_text, draw_documents, read_documents, write_documents
from sae_toolkit.ground_truth.language import Slot

SMALL = LanguageConfig(n_classes=4, context_length=13, header_events=2, open=0.1, report=0.2, filler=0.2, reaction=0.4)
NOUNS = ("lamp", "door", "river", "bread")
LIKED = ({"lamp": 0.4, "door": 0.3, "river": 0.2, "bread": 0.1}, {"river": 0.4, "bread": 0.3, "lamp": 0.2, "door": 0.1})
VERB_OF = {
    "lamp": ("kindled", "trimmed", "faded", "choked"),
    "door": ("unbarred", "greased", "bolted", "wedged"),
    "river": ("settled", "slowed", "stirred", "swelled"),
    "bread": ("baked", "glazed", "hoarded", "scorched"),
}
WORD_OF = {
    "lamp": ("bright", "steady", "dim", "smoky"),
    "door": ("open", "oiled", "locked", "jammed"),
    "river": ("clear", "calm", "muddy", "flooded"),
    "bread": ("warm", "crusty", "stale", "burnt"),
}
CHANGES = {verb: (noun, state) for noun, verbs in VERB_OF.items() for state, verb in enumerate(verbs)}
STATE = ((0.7 * 0.65, 0.7 * 0.35, 0.3 * 0.65, 0.3 * 0.35), (0.3 * 0.65, 0.3 * 0.35, 0.7 * 0.65, 0.7 * 0.35))
SPEAKERS = ("Ada", "Bram", "Cleo", "Dirk")
FILLERS = ("aye", "so", "hm", "now", "oh", "ah", "indeed", "perhaps", "look", "listen", "anyway", "still")
SUBJECTS = {"sailor": 0, "baker": 0, "widow": 0, "guard": 0, "sailors": 1, "bakers": 1, "widows": 1, "guards": 1}
VERBS = {"sings": 0, "waits": 0, "sleeps": 0, "laughs": 0, "sing": 1, "wait": 1, "sleep": 1, "laugh": 1}


class SlowGrammar:
    """One document, one hidden path: P(word | words before, topic, mood, speaker), from the description in words."""

    def __init__(self):
        self.state = dict.fromkeys(NOUNS)
        self.place, self.switched, self.depth, self.noun, self.plural = "name", 0, 0, None, None

    def p(self, word, topic, mood, speaker):  # noqa: PLR0911
        c = SMALL
        cheerful = c.fidelity if mood == 0 else 1 - c.fidelity
        marks = {"!": cheerful, ".": 1 - cheerful}
        verb = {v: 0.25 for v, plural in VERBS.items() if plural == self.plural}
        if self.place == "name":
            return {"someone": 0.5, SPEAKERS[speaker]: 0.5}.get(word, 0.0)
        if self.place == "header":
            free = [noun for noun in NOUNS if self.state[noun] is None]
            noun, state = CHANGES.get(word, (None, None))
            return STATE[mood][state] / len(free) if noun in free else 0.0
        if self.place == "value":
            state = self.state[self.noun]
            return float(word == ("ordinary" if state is None else WORD_OF[self.noun][state]))
        if self.place == "mark":
            return marks.get(word, 0.0)
        if self.place == "reaction":
            reaction = "gladly" if self.state[self.noun] < 2 else "sadly"
            return c.reaction if word == reaction else (1 - c.reaction) * marks.get(word, 0.0)
        if self.place == "near or verb":
            return 0.4 if word == "near" else 0.6 * verb.get(word, 0.0)
        if self.place == "attractor":
            return 1 / 8 if word in SUBJECTS else 0.0
        if self.place == "verb":
            return verb.get(word, 0.0)
        opens, closes = c.open * (self.depth < 2), c.close * (self.depth > 0)
        if word in FILLERS:
            return c.filler * (0.25 if FILLERS.index(word) // 3 == speaker else 0.25 / 9)
        if word in CHANGES:
            return c.event * STATE[mood][CHANGES[word][1]] / 4
        if word in SUBJECTS:
            return c.report / 8
        if word in "()":
            return opens if word == "(" else closes
        return (1 - c.filler - c.event - c.report - opens - closes) * LIKED[topic].get(word, 0.0)

    def read(self, word):
        """Returns whether a unit begins."""
        if self.place == "name":
            self.place = "header"
        elif word in CHANGES:
            noun, state = CHANGES[word]
            self.state[noun] = state
            in_header = self.place == "header"
            self.switched += in_header
            self.place = "header" if in_header and self.switched < SMALL.header_events else "mark"
        elif word in NOUNS:
            self.noun, self.place = word, "value"
        elif self.place == "value":
            self.place = "mark" if word == "ordinary" else "reaction"
        elif word in ("gladly", "sadly") or word in VERBS:
            self.place = "mark"
        elif word == "near":
            self.place = "attractor"
        elif word in SUBJECTS and self.place == "attractor":
            self.place = "verb"
        elif word in SUBJECTS:
            self.plural, self.place = SUBJECTS[word], "near or verb"
        else:
            self.depth += (word == "(") - (word == ")")
            self.place = "unit"
        return self.place == "unit"


def joint_by_enumeration(words):
    """P(words, topic, mood, speaker with which the next word is drawn), summed over every hidden path."""
    grammar = SlowGrammar()
    hidden = list(itertools.product(range(2), range(2), range(4)))
    paths = {(h,): 1 / 16 for h in hidden}  # whole histories of (topic, mood, speaker)
    for word in words:
        paths = {path: p * q for path, p in paths.items() if (q := grammar.p(word, *path[-1])) > 0}
        if grammar.read(word):
            stay = SMALL.stickiness
            paths = {
                (*path, (topic, mood, path[-1][2])): p
                * (stay if topic == path[-1][0] else 1 - stay)
                * (stay if mood == path[-1][1] else 1 - stay)
                for path, p in paths.items()
                for topic in range(2)
                for mood in range(2)
            }
    ends = dict.fromkeys(hidden, 0.0)
    for path, p in paths.items():
        ends[path[-1]] += p
    return ends


@pytest.fixture(scope="module")
def small():
    return Language(SMALL)


def test_posteriors_and_likelihoods_equal_enumeration_over_all_hidden_paths(small):
    tokens = draw_documents(small, 25, seed=3).tokens
    reading = read_documents(small, tokens)
    n_units = 0
    for d, document in enumerate(tokens.tolist()):
        words = [small.lexicon.words[t] for t in document[1:]]
        for length in (1, 4, 7, len(words)):
            joint = joint_by_enumeration(words[:length])
            total = sum(joint.values())
            assert math.isclose(-math.log(total), float(reading.nll[d, :length].double().sum()), rel_tol=1e-4)
            for variable, values, n in ((0, reading.topic, 2), (1, reading.mood, 2), (2, reading.speaker, 4)):
                expected = [sum(p for h, p in joint.items() if h[variable] == v) / total for v in range(n)]
                assert values[d, length].tolist() == pytest.approx(expected, abs=1e-5)
        n_units += int((reading.slot[d] == Slot.UNIT).sum())
    assert n_units > 50


def test_the_entropy_equals_that_of_all_short_documents(small):
    # All 6-token documents, with their probability from the slow grammar: H = -sum p log p, over 5 tokens.
    short = Language(LanguageConfig(**{**vars(SMALL), "context_length": 6}))
    reachable = [w for w in short.lexicon.words if w != "<bos>"]
    total = entropy = 0.0

    def visit(words):
        nonlocal total, entropy
        p = sum(joint_by_enumeration(words).values())
        if p == 0:
            return
        if len(words) == 5:
            total, entropy = total + p, entropy - p * math.log(p)
            return
        for word in reachable:
            visit([*words, word])

    visit(["someone", "kindled"])  # one of the openings; the others are compared by the test above
    opening = sum(joint_by_enumeration(["someone", "kindled"]).values())
    assert total == pytest.approx(opening, rel=1e-9)
    tokens = draw_documents(short, 16_384, seed=0).tokens
    first = [short.lexicon.words.index(w) for w in ("someone", "kindled")]
    chosen = tokens[(tokens[:, 1] == first[0]) & (tokens[:, 2] == first[1])]
    assert len(chosen) / len(tokens) == pytest.approx(opening, abs=3 * math.sqrt(opening / len(tokens)))
    nll = read_documents(short, chosen).nll.double().sum(1)
    expected = entropy / opening  # E[-log p(document) | opening]
    assert float(nll.mean()) == pytest.approx(expected, abs=4 * float(nll.std()) / math.sqrt(len(nll)))


def test_every_distribution_sums_to_one(small):
    for language in (small, Language()):
        tokens = draw_documents(language, 200, seed=1).tokens
        parse, beliefs = language.start(len(tokens))
        for position in range(1, tokens.shape[1]):
            sums = language.next_token(parse, beliefs).double().sum(1)
            assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
            parse = language.read_token(parse, tokens[:, position])
            beliefs = language.update(beliefs, parse, tokens[:, position])


def test_a_document_by_hand():
    words = [
        "<bos>",
        "Ada",
        "kindled",
        "bolted",
        ".",
        "lamp",
        "bright",
        "gladly",
        "!",
        "(",
        "sailor",
        "near",
        "bakers",
        "sings",
        "!",
        ")",
    ]
    language = Language(LanguageConfig(context_length=16, header_events=2))
    ids = torch.tensor([[language.lexicon.words.index(w) for w in words]])
    reading = read_documents(language, ids)
    s = Slot
    assert reading.slot[0].tolist() == [
        s.NAME, s.HEADER, s.HEADER, s.MARK, s.UNIT, s.VALUE, s.REACTION, s.MARK,
        s.UNIT, s.UNIT, s.NEAR_OR_VERB, s.ATTRACTOR, s.VERB, s.MARK, s.UNIT, s.UNIT,
    ]  # fmt: skip
    assert reading.depth[0].tolist() == [0] * 9 + [1] * 6 + [0]
    assert reading.number[0].tolist() == [-1] * 10 + [0] * 3 + [-1] * 3
    assert reading.value[0].tolist() == [-1] * 5 + [0] + [-1] * 10
    assert reading.tone[0].tolist() == [-1] * 5 + [0, 0] + [-1] * 9
    assert reading.speaker[0, 1].tolist() == [1, 0, 0, 0]
    assert as_text(language, ids[0].tolist()) == "Ada kindled bolted. lamp bright gladly! (sailor near bakers sings!)"


def test_a_later_event_wins_and_what_nobody_changed_is_ordinary():
    language = Language(LanguageConfig(context_length=12, header_events=1))
    words = "<bos> someone kindled . door ordinary . faded . lamp dim .".split()  # noqa: SIM905
    ids = torch.tensor([[language.lexicon.words.index(w) for w in words]])
    reading = read_documents(language, ids)
    assert reading.value[0, 4] == language.lexicon.size["value"]
    assert reading.value[0, 9] == 2
    assert reading.tone[0, 9:11].tolist() == [1, 1]


def test_a_document_that_is_not_of_the_language_is_refused(small):
    tokens = draw_documents(small, 3, seed=0).tokens.clone()
    tokens[1, 4] = tokens[1, 1]
    with pytest.raises(ValueError, match=r"document 1 .* position 4"):
        read_documents(small, tokens)
    with pytest.raises(ValueError, match="BOS"):
        read_documents(small, tokens[:, 1:])


def test_documents_do_not_depend_on_how_many_are_asked_for(small):
    whole = draw_documents(small, 4200, seed=0).tokens
    assert torch.equal(whole[4090:4100], draw_documents(small, 10, seed=0, first=4090).tokens)
    assert not torch.equal(whole[:10], draw_documents(small, 10, seed=1).tokens)


def test_a_perfect_reader_is_calibrated():
    # the posterior of what was truly hidden equals, on average, the posterior's own sum of squares
    language = Language()
    corpus = draw_documents(language, 2000, seed=5)
    reading = read_documents(language, corpus.tokens)
    speaker = corpus.speaker[:, None].expand_as(corpus.topic)
    for posterior, truth in ((reading.topic, corpus.topic), (reading.mood, corpus.mood), (reading.speaker, speaker)):
        of_truth = posterior.gather(2, truth[..., None])[..., 0].double()
        own = posterior.double().square().sum(-1)
        difference = (of_truth - own).mean(1)  # one per document
        assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(len(difference))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_classes": 11}, "even number"),
        ({"header_events": 17}, "header_events"),
        ({"event": 0.9}, "sum below 1"),
        ({"fidelity": 1.0}, "between 0 and 1"),
    ],
)
def test_impossible_choices_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Language(LanguageConfig(**change))


def test_documents_are_written_for_people(tmp_path, small):
    path = write_documents(small, tmp_path / "documents.jsonl", n_documents=3, seed=0)
    corpus = draw_documents(small, 3, seed=0)
    for i, line in enumerate(path.read_text().splitlines()):
        document = json.loads(line)
        assert document["text"] == as_text(small, corpus.tokens[i].tolist())
        assert document["speaker"] == SPEAKERS[int(corpus.speaker[i])]
        assert document["topic"] == corpus.topic[i].tolist()
        assert [m == "gloomy" for m in document["mood"]] == corpus.mood[i].bool().tolist()
