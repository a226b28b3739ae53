"""What each token id reads like, whatever kind of tokenizer it is."""

from collections.abc import Sequence
from typing import Any

UNDECODABLE = "\ufffd"
"""Stands for bytes that are no whole character by themselves."""


def token_texts(tokenizer: Any) -> tuple[str, ...] | None:
    """The text of every token id, its leading space included; None where the tokenizer has no plain token at all.

    Each id is decoded behind another token and that token's text taken off: alone, sentencepiece tokens would lose
    their leading space and WordPiece ones keep their "##". Ids that no token has read as nothing.
    """
    n_ids = 1 + max(tokenizer.get_vocab().values(), default=-1)
    alone = decoded(tokenizer, [[number] for number in range(n_ids)])
    special = set(tokenizer.all_special_ids)
    plain = [i for i, text in enumerate(alone) if i not in special and is_plain(text)]
    if not plain:
        return None
    before = min(plain, key=lambda i: not (alone[i].isascii() and alone[i].isalpha()))
    behind = decoded(tokenizer, [[before, number] for number in range(n_ids)])
    prefix = alone[before]
    return tuple(
        pair[len(prefix) :] if pair.startswith(prefix) else own for pair, own in zip(behind, alone, strict=True)
    )


def is_plain(text: str) -> bool:
    """Whether a text is whole characters without space around them."""
    return bool(text) and text == text.strip() and UNDECODABLE not in text


def decoded(tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[str]:
    """The text of each list of ids, with nothing tidied up and nothing skipped."""
    texts: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return texts
