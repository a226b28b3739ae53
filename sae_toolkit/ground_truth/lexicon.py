"""The words of the known language: each has one part to play, so that a reader can follow."""

from functools import cached_property
from itertools import accumulate

from jaxtyping import Int
from torch import Tensor, tensor

BOS = "<bos>"
UNKNOWN = "<unk>"
"""What the tokenizer makes of any other word; it stands in no document."""
CLASSES: dict[str, tuple[tuple[str, str], ...]] = {
    "lamp": (("bright", "kindled"), ("steady", "trimmed"), ("dim", "faded"), ("smoky", "choked")),
    "door": (("open", "unbarred"), ("oiled", "greased"), ("locked", "bolted"), ("jammed", "wedged")),
    "river": (("clear", "settled"), ("calm", "slowed"), ("muddy", "stirred"), ("flooded", "swelled")),
    "bread": (("warm", "baked"), ("crusty", "glazed"), ("stale", "hoarded"), ("burnt", "scorched")),
    "garden": (("green", "watered"), ("blooming", "planted"), ("dusty", "parched"), ("overgrown", "neglected")),
    "ship": (("moored", "anchored"), ("seaworthy", "caulked"), ("adrift", "loosed"), ("leaking", "holed")),
    "tower": (("tall", "raised"), ("manned", "guarded"), ("empty", "abandoned"), ("crumbling", "shelled")),
    "bell": (("ringing", "tolled"), ("polished", "buffed"), ("silent", "muffled"), ("cracked", "struck")),
    "horse": (("saddled", "bridled"), ("rested", "stabled"), ("lame", "injured"), ("restless", "spooked")),
    "well": (("full", "refilled"), ("sweet", "filtered"), ("dry", "drained"), ("bitter", "salted")),
    "road": (("paved", "cobbled"), ("straight", "levelled"), ("icy", "froze"), ("blocked", "barricaded")),
    "market": (("busy", "crowded"), ("cheap", "discounted"), ("closed", "shuttered"), ("costly", "taxed")),
    "coat": (("clean", "washed"), ("mended", "sewed"), ("torn", "ripped"), ("soaked", "drenched")),
    "clock": (("punctual", "adjusted"), ("wound", "cranked"), ("late", "delayed"), ("stopped", "broke")),
    "letter": (("sealed", "stamped"), ("legible", "copied"), ("blotted", "smudged"), ("lost", "mislaid")),
    "child": (("merry", "tickled"), ("asleep", "lulled"), ("tearful", "teased"), ("hungry", "starved")),
}
"""What is spoken of: each has four values, two good and two bad, and for each value the verb that brings it about."""
N_VALUES = 4
GOOD_VALUES = 2
"""The first so many values of a class are good, the others bad."""
ORDINARY = "ordinary"
"""Said of a class that nobody has changed."""
SPEAKERS = ("Ada", "Bram", "Cleo", "Dirk")
NOBODY = "someone"
"""In place of the speaker's name."""
FILLERS = ("aye", "so", "hm", "now", "oh", "ah", "indeed", "perhaps", "look", "listen", "anyway", "still")
"""Three that each speaker likes, in the speakers' order."""
REACTIONS = ("gladly", "sadly")
"""After a good value, after a bad one."""
MARKS = ("!", ".")
"""The cheerful one and the gloomy one."""
BRACKETS = ("(", ")")
SUBJECTS = (("sailor", "baker", "widow", "guard"), ("sailors", "bakers", "widows", "guards"))
VERBS = (("sings", "waits", "sleeps", "laughs"), ("sing", "wait", "sleep", "laugh"))
"""Singular, plural."""
NEAR = "near"


class Lexicon:
    """Token ids of the words that a language with the first `n_classes` classes uses."""

    def __init__(self, n_classes: int) -> None:
        if not 4 <= n_classes <= len(CLASSES) or n_classes % 2:
            raise ValueError(f"Lexicon: n_classes={n_classes} asked. Give an even number from 4 to {len(CLASSES)}.")
        chosen = list(CLASSES.items())[:n_classes]
        self.nouns = [noun for noun, _ in chosen]
        self.values = [value for _, states in chosen for value, _ in states]
        self.events = [event for _, states in chosen for _, event in states]
        groups: dict[str, list[str]] = {
            "bos": [BOS],
            "noun": self.nouns,
            "value": self.values,
            "ordinary": [ORDINARY],
            "event": self.events,
            "name": [*SPEAKERS, NOBODY],
            "filler": list(FILLERS),
            "reaction": list(REACTIONS),
            "mark": list(MARKS),
            "bracket": list(BRACKETS),
            "subject": [word for number in SUBJECTS for word in number],
            "verb": [word for number in VERBS for word in number],
            "near": [NEAR],
            "unknown": [UNKNOWN],
        }
        self.words = [word for group in groups.values() for word in group]
        assert len(set(self.words)) == len(self.words), "a word stands twice in the lexicon"
        self.size = {name: len(group) for name, group in groups.items()}
        self.first = dict(zip(groups, accumulate(self.size.values(), initial=0), strict=False))

    def __len__(self) -> int:
        return len(self.words)

    def ids(self, group: str) -> slice:
        """Token ids of one part of speech, in the order of its list."""
        return slice(self.first[group], self.first[group] + self.size[group])

    @cached_property
    def group_of(self) -> Int[Tensor, " n_words"]:
        """The number of each word's part of speech, in the order of `size`."""
        return tensor([number for number, n in enumerate(self.size.values()) for _ in range(n)])

    def number_of(self, group: str) -> int:
        """What `group_of` says of a part of speech."""
        return list(self.size).index(group)
