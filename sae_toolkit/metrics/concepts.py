"""Concepts that a user writes into a file: which tokens belong to each, and the labelling they make.

A JSON file, concept name -> any of

    "tokens"    exact texts of tokens, leading space included: [" not", "n't"]
    "words"     texts of tokens without space around them, in any case: ["not", "never"]
    "pattern"   a regular expression that the whole text of a token must match: " ?[0-9]+"

A token belongs to a concept that any of its fields names.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_toolkit.metrics.labels import Labelling, by_text

FIELDS = ("tokens", "words", "pattern")


@dataclass(frozen=True, kw_only=True)
class Concept:
    """Which tokens a concept is about."""

    tokens: frozenset[str] = frozenset()
    """Texts of tokens, leading space included."""
    words: frozenset[str] = frozenset()
    """Texts without space around them, in lower case."""
    pattern: re.Pattern[str] | None = None
    """What the whole text of a token must match."""

    def holds(self, text: str) -> bool:
        """Whether a token of this text belongs to it."""
        if text in self.tokens or text.strip().lower() in self.words:
            return True
        return self.pattern is not None and self.pattern.fullmatch(text) is not None


def read_concepts(path: str | Path) -> dict[str, Concept]:
    """The concepts of a JSON file, in its order; anything that is not understood is a ValueError."""
    try:
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"read_concepts: {path} is no JSON: {error}. See the format in its documentation.") from error
    if not isinstance(contents, dict) or not contents:
        raise ValueError(f"read_concepts: {path} must hold an object of concepts by name, and at least one.")
    return {name: parsed(name, fields) for name, fields in contents.items()}


def parsed(name: str, fields: Any) -> Concept:
    """One concept of the file."""
    if not isinstance(fields, dict):
        raise ValueError(f"read_concepts: {name!r} is {fields!r}, but an object with {', '.join(FIELDS)} is needed.")
    for field in fields:
        if field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, n=1, cutoff=0.0)
            raise ValueError(f"read_concepts: {name!r} has an unknown field {field!r}. Did you mean {near[0]!r}?")
    concept = Concept(
        tokens=frozenset(texts(name, "tokens", fields)),
        words=frozenset(word.strip().lower() for word in texts(name, "words", fields)),
        pattern=compiled(name, fields.get("pattern", "")),
    )
    if concept == Concept():
        raise ValueError(f"read_concepts: {name!r} is empty. Give it {', '.join(FIELDS[:-1])} or {FIELDS[-1]}.")
    return concept


def texts(name: str, field: str, fields: Mapping[str, Any]) -> list[str]:
    """A list of texts that are not empty."""
    given = fields.get(field, [])
    if not isinstance(given, list) or not all(isinstance(text, str) and text for text in given):
        raise ValueError(f"read_concepts: {field} of {name!r} must be a list of texts, none empty; it is {given!r}.")
    return given


def compiled(name: str, pattern: Any) -> re.Pattern[str] | None:
    """The regular expression, None for an empty one."""
    if not isinstance(pattern, str):
        raise ValueError(f"read_concepts: the pattern of {name!r} must be a text; it is {pattern!r}.")
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise ValueError(f"read_concepts: the pattern {pattern!r} of {name!r} is none: {error}.") from error


def concept_labelling(concepts: Mapping[str, Concept], token_texts: Sequence[str]) -> Labelling:
    """The labelling "concept"; several may hold at once. A concept that no token belongs to is a ValueError."""
    for name, concept in concepts.items():
        if not any(concept.holds(text) for text in token_texts):
            raise ValueError(
                f"concept_labelling: no token belongs to {name!r}. Its words may be longer than any token of this "
                "vocabulary, or its tokens may lack their leading space."
            )
    return by_text(
        "concept",
        token_texts,
        tuple(concepts),
        lambda text: [name for name, concept in concepts.items() if concept.holds(text)],
    )
