"""What can be said about a token from its text alone, by short rules and word lists for English."""

import re

from sae_toolkit.activations.token_texts import UNDECODABLE

TOKEN_CLASSES = (
    "whitespace",
    "punctuation",
    "digits",
    "capitalised",
    "word_start",
    "continuation",
    "partial_character",
    "empty",
)

FIRST_LETTERS = (*"abcdefghijklmnopqrstuvwxyz", "other_letter", "no_letter")

WORDS = {
    "function_word": "a an the of to in on at by for with from as into over under about between through and or but nor "
    "so if than that which who whom whose this these those there",
    "negation": "no not never none nobody nothing neither nor nowhere cannot n't 't without",
    "number_word": "zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty "
    "hundred thousand million billion first second third once twice",
    "pronoun": "i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we "
    "us our ours ourselves they them their theirs themselves",
    "auxiliary": "am is are was were be been being do does did have has had having will would shall should can could "
    "may might must",
}
"""Kinds of words by their members, in lower case."""

ENDINGS = {
    "ends_ing": r"[a-z]{2,}ing",
    "ends_ed": r"[a-z]{2,}ed",
    "ends_ly": r"[a-z]{2,}ly",
    "plural_s": r"[a-z]{2,}[b-hj-np-rtv-z]s",
}
"""Kinds of words by how they end; the rules take no notice of meaning ("thing" ends in -ing, "runs" in a plural s)."""

LINGUISTIC_KINDS = (*WORDS, *ENDINGS)

MEMBERS = {kind: frozenset(words.split()) for kind, words in WORDS.items()}
LISTED = frozenset(word for words in MEMBERS.values() for word in words)


def token_class(text: str) -> str:
    """The one of `TOKEN_CLASSES` a token belongs to; a leading space marks the start of a word, nothing else does."""
    bare = text.strip()
    rules = {
        "empty": not text,
        "whitespace": not bare,
        "partial_character": UNDECODABLE in bare,
        "punctuation": not any(character.isalnum() for character in bare),
        "digits": bare.isnumeric(),
        "capitalised": bare[:1].isupper(),
        "word_start": text[:1].isspace(),
        "continuation": True,
    }
    return next(name for name, holds in rules.items() if holds)


def first_letter(text: str) -> str:
    """The first character behind the space, in lower case, if it is a letter a-z; else which kind it is."""
    first = text.strip()[:1].lower()
    if first in FIRST_LETTERS:
        return first
    return "other_letter" if first.isalpha() else "no_letter"


def linguistic_kinds(text: str) -> list[str]:
    """Those of `LINGUISTIC_KINDS` that hold: listed words, and endings of words that are in no list.

    A word cut into several tokens is not put together again: each piece is judged by its own text.
    """
    word = text.strip().lower()
    kinds = [kind for kind, members in MEMBERS.items() if word in members]
    if word in LISTED:
        return kinds
    return [kind for kind, pattern in ENDINGS.items() if re.fullmatch(pattern, word)]
