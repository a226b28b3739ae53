"""A dictionary's record as compact JSON: what the pages of a dashboard read.

Two parts. The overview has a column for each number and whatever a latent is found by; the details have everything
about some of the latents, so that a dashboard in many files loads them as they are opened. Each part stores a text once
and refers to it by number. Activations, scores and cosines keep three digits; what is not finite becomes null.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from sae_toolkit.analysis.latent_record import DictionaryRecord, Example, LatentRecord, LatentScore

N_PEAKS = 5
"""Tokens that the overview shows of a latent: those it fires on most strongly, each once."""
UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
"""What must not stand in a script: markup, line ends that JavaScript knows and JSON does not, half characters."""

Json = dict[str, Any]
Number = int | float | None


class Texts:
    """Numbers for texts: the same one for the same text."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))

    def numbers_of(self, texts: Iterable[str]) -> list[int]:
        return [self.number(text) for text in texts]

    def to_json(self) -> list[str]:
        """The texts, in the order of their numbers."""
        return list(self.numbers)


def overview(record: DictionaryRecord) -> Json:
    """Columns over the latents of the record; `peaks` and `words` refer to `texts`."""
    texts = Texts()
    latents = record.latents
    return {
        "dSae": record.d_sae,
        "nSamples": record.n_samples,
        "latents": [latent.latent for latent in latents],
        "density": three_digits(latent.density for latent in latents),
        "mean": three_digits(latent.mean_activation for latent in latents),
        "max": three_digits(latent.max_activation for latent in latents),
        "features": [feature(latent) for latent in latents],
        "scores": score_columns(latents),
        "peaks": [texts.numbers_of(peak_tokens(latent)) for latent in latents],
        "words": [texts.numbers_of(words(latent)) for latent in latents],
        "notes": dict(record.notes),
        "texts": texts.to_json(),
    }


def feature(latent: LatentRecord) -> list[Any] | None:
    """Index, name, cosine and F1 of the true feature; None where there is none."""
    found = latent.feature
    return None if found is None else [found.index, found.name, *three_digits([found.cosine, found.f1])]


def score_columns(latents: Sequence[LatentRecord]) -> dict[str, dict[str, list[Number]]]:
    """Values and floors by the name of the score."""
    absent = LatentScore(value=float("nan"))
    names = dict.fromkeys(name for latent in latents for name in latent.scores)
    columns = {}
    for name in names:
        scores = [latent.scores.get(name, absent) for latent in latents]
        columns[name] = {
            "values": three_digits(score.value for score in scores),
            "floors": three_digits(score.floor for score in scores),
        }
    return columns


def peak_tokens(latent: LatentRecord) -> list[str]:
    """What it fires on most strongly; on a source without tokens, the true features that fire then most often."""
    strongest = sorted(latent.examples, key=lambda example: -abs(example.activations[example.peak]))
    tokens = dict.fromkeys(example.tokens[example.peak] for example in strongest if example.tokens)
    features = Counter(name for example in strongest if not example.tokens for name, _ in example.truth)
    return [*tokens, *(name for name, _ in features.most_common())][:N_PEAKS]


def words(latent: LatentRecord) -> list[str]:
    """What a search finds it by: tokens it fires on, true features beside them, its own feature, what is related."""
    found: dict[str, None] = {}
    for example in latent.examples:
        firing = zip(example.tokens, example.activations, strict=False)
        found.update(dict.fromkeys(token for token, value in firing if isfinite(value) and value != 0))
        found.update(dict.fromkeys(name for name, _ in example.truth))
    if latent.feature is not None:
        found[latent.feature.name] = None
    found.update(dict.fromkeys(near.label for nearby in latent.related.values() for near in nearby))
    return list(found)


def details(latents: Sequence[LatentRecord]) -> Json:
    """Everything about these latents, in their order; all texts by number."""
    texts = Texts()
    return {"latents": [latent_details(latent, texts) for latent in latents], "texts": texts.to_json()}


def latent_details(latent: LatentRecord, texts: Texts) -> Json:
    """`related` has [title, [[index, label, value], ...]]."""
    return {
        "histogram": latent.histogram
        and {"edges": three_digits(latent.histogram.edges), "counts": list(latent.histogram.counts)},
        "examples": [example_details(example, texts) for example in latent.examples],
        "related": [
            [title, [[near.index, texts.number(near.label), *three_digits([near.value])] for near in nearby]]
            for title, nearby in latent.related.items()
        ],
    }


def example_details(example: Example, texts: Texts) -> list[Any]:
    """[band, tokens, activations, peak, document, position, [[feature, coefficient], ...]]."""
    return [
        texts.number(example.band),
        texts.numbers_of(example.tokens),
        three_digits(example.activations),
        example.peak,
        example.document,
        example.position,
        [[texts.number(name), *three_digits([coefficient])] for name, coefficient in example.truth],
    ]


def three_digits(values: Iterable[Number]) -> list[Number]:
    """Numbers as a page shows them; whole ones without a point."""
    return [rounded(value) for value in values]


def rounded(value: Number) -> Number:
    """Three significant digits (an error of at most 0.5 %); None for what is not finite."""
    if value is None or not isfinite(value):
        return None
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short


def script_json(content: Mapping[str, Any]) -> str:
    """JSON that is JavaScript, too, and that no text in it can turn into anything else.

    The characters of `UNSAFE` occur in strings alone, so that writing them as escapes changes no value.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
