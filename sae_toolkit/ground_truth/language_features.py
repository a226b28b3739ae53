"""The features of the known language: a name for each value of each latent variable, and where it holds."""

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sae_toolkit.ground_truth.language import MAX_DEPTH, Language, Slot
from sae_toolkit.ground_truth.language_documents import Reading, read_documents
from sae_toolkit.ground_truth.lexicon import GOOD_VALUES, N_VALUES, SPEAKERS
from sae_toolkit.sparse_rows import SparseRows

BELIEVED = 0.5
"""A hidden value is a feature that holds where its posterior is above this."""
FAMILIES = ("value", "ordinary", "tone", "topic", "mood", "speaker", "number", "depth", "slot", "token", "previous")
"""The latent variables, in the order of their features.

value, ordinary: what must be said next of the thing just named; the model has to find it in the whole text so far.
tone: whether the value that comes next or was just said is good or bad: the parents of the values.
topic, mood, speaker: hidden; the coefficient is the posterior where it is above 1/2.
number: a verb that agrees is still to come. depth: at least so many open brackets. slot: what kind of word comes next.
token, previous: the word itself, and the one before it.
"""
VARIABLES = tuple(family for family in FAMILIES if family not in ("token", "previous"))
"""All but the words themselves."""
INFERRED = ("topic", "mood", "speaker")
"""Families of which even a perfect reader has only beliefs."""


class LanguageFeatures:
    """Features of one language by number, and where they hold in documents of it."""

    def __init__(self, language: Language, families: Collection[str] = FAMILIES) -> None:
        unknown = [family for family in families if family not in FAMILIES]
        if unknown or not families:
            raise ValueError(
                f"LanguageFeatures: families {unknown or list(families)} asked; choose among {', '.join(FAMILIES)}."
            )
        self.language = language
        self.families = tuple(family for family in FAMILIES if family in families)
        self.names = [f"{family}: {name}" for family in self.families for name in family_names(language, family)]
        self.columns: dict[str, slice] = {}
        """Where each family lies among the features."""
        start = 0
        for family in self.families:
            self.columns[family] = slice(start, start + len(family_names(language, family)))
            start = self.columns[family].stop

    def __len__(self) -> int:
        return len(self.names)

    def coefficients(self, tokens: Int[Tensor, "n context"]) -> SparseRows:
        """Where the features hold after each token, `[n context n_features]`."""
        reading = read_documents(self.language, tokens)
        dense = [family_coefficients(self.language, family, tokens, reading) for family in self.families]
        return SparseRows.from_dense(torch.cat(dense, dim=-1))

    def hierarchy_pairs(self) -> Int[Tensor, "n_pairs 2"]:
        """(parent, child) among the chosen families: tone and noun of each value, bracket depths."""
        first = {family: columns.start for family, columns in self.columns.items()}
        n_values, nouns = self.language.lexicon.size["value"], self.language.lexicon.first["noun"]
        pairs: list[tuple[int, int]] = []
        for value in range(n_values if "value" in first else 0):
            child = first["value"] + value
            if "tone" in first:
                pairs.append((first["tone"] + (value % N_VALUES >= GOOD_VALUES), child))
            if "token" in first:
                pairs.append((first["token"] + nouns + value // N_VALUES, child))
        if "depth" in first:
            pairs += [(first["depth"] + depth, first["depth"] + depth + 1) for depth in range(MAX_DEPTH - 1)]
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def family_names(language: Language, family: str) -> list[str]:
    """The values of one variable, in the order of their columns."""
    lexicon = language.lexicon
    spoken = [f"{lexicon.nouns[value // N_VALUES]} {word}" for value, word in enumerate(lexicon.values)]
    names = {
        "value": spoken,
        "ordinary": ["ordinary"],
        "tone": ["good", "bad"],
        "topic": [str(topic) for topic in range(language.n_topics)],
        "mood": ["cheerful", "gloomy"],
        "speaker": list(SPEAKERS),
        "number": ["singular", "plural"],
        "depth": [f"at least {depth}" for depth in range(1, MAX_DEPTH + 1)],
        "slot": [slot.name.lower().replace("_", " ") for slot in Slot],
        "token": lexicon.words,
        "previous": lexicon.words,
    }
    return names[family]


def family_coefficients(
    language: Language, family: str, tokens: Int[Tensor, "n context"], reading: Reading
) -> Float[Tensor, "n context n_family"]:
    """1 where a value of the variable holds (of inferred ones: its posterior), 0 elsewhere."""
    n_values, words = language.lexicon.size["value"], len(language.lexicon)
    if family in INFERRED:
        posterior: Tensor = getattr(reading, family)
        return torch.where(posterior > BELIEVED, posterior, 0.0)
    if family == "depth":
        return (reading.depth[..., None] > torch.arange(MAX_DEPTH)).float()
    previous = torch.full_like(tokens, -1)
    previous[:, 1:] = tokens[:, :-1]
    number, size = {
        "value": (torch.where(reading.value == n_values, -1, reading.value), n_values),
        "ordinary": (torch.where(reading.value == n_values, 0, -1), 1),
        "tone": (reading.tone, 2),
        "number": (reading.number, 2),
        "slot": (reading.slot, len(Slot)),
        "token": (tokens, words),
        "previous": (previous, words),
    }[family]
    return F.one_hot(number + 1, size + 1)[..., 1:].float()
