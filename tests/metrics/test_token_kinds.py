"""Rules on the text of tokens, by hand."""

import pytest

from sae_toolkit.metrics.token_kinds import TOKEN_CLASSES, first_letter, linguistic_kinds, token_class

CLASSES = {
    " ": "whitespace",
    "\n\n": "whitespace",
    "": "empty",
    ".": "punctuation",
    " --": "punctuation",
    " 1984": "digits",
    "7": "digits",
    " The": "capitalised",
    "Mc": "capitalised",
    " cat": "word_start",
    "ing": "continuation",
    "'s": "continuation",
    "3rd": "continuation",
    "\ufffd": "partial_character",
    " é": "word_start",
}


@pytest.mark.parametrize("text", CLASSES)
def test_token_class(text):
    assert token_class(text) == CLASSES[text]


def test_every_class_is_met():
    assert set(CLASSES.values()) == set(TOKEN_CLASSES)


@pytest.mark.parametrize(
    ("text", "letter"),
    [(" Cat", "c"), ("zz", "z"), (" é", "other_letter"), ("7", "no_letter"), (" .", "no_letter"), ("", "no_letter")],
)
def test_first_letter(text, letter):
    assert first_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (" not", ["negation"]),
        (" nor", ["function_word", "negation"]),
        (" The", ["function_word"]),
        (" walking", ["ends_ing"]),
        (" being", ["auxiliary"]),  # a listed word is judged by its list alone
        (" walked", ["ends_ed"]),
        (" slowly", ["ends_ly"]),
        (" cats", ["plural_s"]),
        (" glass", []),
        (" bus", []),
        (" his", ["pronoun"]),
        (" seven", ["number_word"]),
        ("ing", []),
        (" cat", []),
    ],
)
def test_linguistic_kinds(text, kinds):
    assert linguistic_kinds(text) == kinds
