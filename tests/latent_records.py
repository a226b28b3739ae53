"""Records of latents for the tests of pages and exports: one worked out by hand, one as large as real ones."""

import random
from dataclasses import replace
from math import nan

from sae_toolkit.analysis import (
    DictionaryRecord,
    Example,
    Histogram,
    LatentRecord,
    LatentScore,
    Neighbour,
    TrueFeature,
)

WORDS = (
    "the", " of", " Paris", " and", "\n", " river", " 12", ".", " is", " called", " ⟨s⟩", " café", "　", " I", "'m",
    " not", " going", " to", " walk", " there", "\t", " because", " it", " rains", ",", " said", " Anna", "ing", "  ",
)  # fmt: skip
HOSTILE = "</script><img src=x onerror=alert(1)><!--\"'&\u2028"
"""What no text of a record may turn into anything else than text."""
LETTERS = "etaoinshrdlucmfwypvbgkqjxz"


def hand_record() -> DictionaryRecord:
    """Three latents of four: one with everything, a dense one with negative values, a dead one."""
    return DictionaryRecord(
        title="TopK <of> a toy",
        d_sae=4,
        n_samples=2000,
        excluded={"token_id": 3, "never": 0},
        latents=(capitals(), negated(), dead()),
        notes={"promoted tokens": "direct path only", "purity_token": "share of the commonest token"},
        provenance={"sae": {"variant": "TopKSAE", "k": 4}, "rate": nan},
    )


def capitals() -> LatentRecord:
    return LatentRecord(
        latent=0,
        density=0.0125,
        mean_activation=1.23456,
        max_activation=4.0,
        histogram=Histogram(edges=(0.0, 1.0, 4.0), counts=(20, 5)),
        examples=(
            Example(
                band="top",
                tokens=("<bos>", " in", " Paris", "\n"),
                activations=(nan, 0.0, 4.0, 0.123456),
                peak=2,
                document=7,
                position=41,
                truth=(("city", 1.5),),
            ),
            Example(
                band="50-75 %",
                tokens=("  ", " Rome", "!"),
                activations=(0.0, 2.0, 0.0),
                peak=1,
                document=None,
                position=None,
            ),
        ),
        related={
            "promoted tokens": (Neighbour(index=9, label=" France", value=2.5),),
            "suppressed tokens": (Neighbour(index=8, label=" mud", value=-1.25),),
            "nearest by decoder": (
                Neighbour(index=2, label="latent 2", value=0.5),
                Neighbour(index=3, label="latent 3", value=-0.25),
            ),
            "correlated neurons": (Neighbour(index=11, label="neuron 11", value=0.75),),
        },
        scores={"purity_token": LatentScore(value=0.8, floor=0.1), "entropy": LatentScore(value=1.5)},
        feature=TrueFeature(index=5, name="city", cosine=0.96, f1=0.9),
    )


def negated() -> LatentRecord:
    return LatentRecord(
        latent=2,
        density=0.4,
        mean_activation=-0.5,
        max_activation=2.0,
        histogram=Histogram(edges=(-3.0, 0.0, 3.0), counts=(700, 100)),
        examples=(
            Example(
                band="top",
                tokens=(),
                activations=(-3.0,),
                peak=0,
                document=None,
                position=None,
                truth=(("mud", 2.0),),
            ),
        ),
        scores={"purity_token": LatentScore(value=nan, floor=0.1), "entropy": LatentScore(value=3.5)},
    )


def dead() -> LatentRecord:
    return LatentRecord(
        latent=3,
        density=0.0,
        mean_activation=nan,
        max_activation=0.0,
        histogram=None,
        examples=(),
        scores={"purity_token": LatentScore(value=nan), "entropy": LatentScore(value=nan)},
    )


def hostile_record() -> DictionaryRecord:
    """One latent whose every text is `HOSTILE`."""
    known = capitals()
    assert known.feature is not None
    latent = replace(
        known,
        examples=(replace(known.examples[0], tokens=(HOSTILE,) * 4, truth=((HOSTILE, 1.0),)),),
        related={HOSTILE: (Neighbour(index=0, label=HOSTILE, value=1.0),)},
        scores={HOSTILE: known.scores["entropy"]},
        feature=replace(known.feature, name=HOSTILE),
    )
    return DictionaryRecord(
        title=HOSTILE,
        d_sae=1,
        n_samples=1,
        excluded={HOSTILE: 1},
        latents=(latent,),
        notes={HOSTILE: HOSTILE},
        provenance={HOSTILE: HOSTILE},
    )


def large_record(
    n_latents: int = 200, *, n_examples: int = 20, n_tokens: int = 40, d_sae: int = 3072, seed: int = 0
) -> DictionaryRecord:
    """As a language model's SAE gives: a vocabulary of thousands, five bands, five related lists, eight scores."""
    draw = random.Random(seed)
    vocabulary = [*WORDS, *(" " + "".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(8000))]
    return DictionaryRecord(
        title="TopK on blocks.8.hook_resid_pre of a small GPT-2",
        d_sae=d_sae,
        n_samples=100_000,
        excluded={"special token": 1562},
        latents=tuple(
            random_latent(draw, i, vocabulary, n_latents, n_examples, n_tokens) for i in range(n_latents)
        ),
        notes={"promoted tokens": "Direct path: decoder direction through final norm and unembedding."},
        provenance={"sae": {"variant": "TopKSAE", "d_in": 768, "k": 32}, "source": {"kind": "transformer"}},
    )  # fmt: skip


def random_latent(
    draw: random.Random, number: int, vocabulary: list[str], n_latents: int, n_examples: int, n_tokens: int
) -> LatentRecord:
    if number % 17 == 5:
        return LatentRecord(
            latent=number, density=0.0, mean_activation=nan, max_activation=0.0, histogram=None, examples=(),
            scores=random_scores(draw, lives=False),
        )  # fmt: skip
    favourites = draw.choices(vocabulary, k=8)
    bands = ("top", "75-100 %", "50-75 %", "25-50 %", "0-25 %")
    examples = [
        random_example(draw, bands[i * len(bands) // n_examples], vocabulary, favourites, n_tokens)
        for i in range(n_examples)
    ]
    edges = [0.01 * 1.3**i for i in range(31)]
    return LatentRecord(
        latent=number,
        density=10 ** draw.uniform(-4, -0.5),
        mean_activation=draw.uniform(0.2, 3),
        max_activation=max(max(example.activations[1:]) for example in examples),
        histogram=Histogram(edges=tuple(edges), counts=tuple(draw.randint(0, 900) for _ in range(30))),
        examples=tuple(examples),
        related=random_relations(draw, vocabulary, n_latents),
        scores=random_scores(draw, lives=True),
        feature=TrueFeature(index=number, name=f"topic {number}", cosine=draw.random(), f1=draw.random())
        if number % 3 == 0
        else None,
    )  # fmt: skip


def random_relations(draw: random.Random, vocabulary: list[str], n_latents: int) -> dict[str, tuple[Neighbour, ...]]:
    """Half of the latents named have no record."""
    tokens = {"promoted tokens": 1, "suppressed tokens": -1}
    numbered = {
        "nearest by decoder": ("latent", 2 * n_latents),
        "fires together with": ("latent", 2 * n_latents),
        "correlated neurons": ("neuron", 3072),
    }
    return {
        **{
            title: tuple(
                Neighbour(index=i, label=draw.choice(vocabulary), value=sign * draw.uniform(0.1, 3)) for i in range(15)
            )
            for title, sign in tokens.items()
        },
        **{
            title: tuple(
                Neighbour(index=i, label=f"{kind} {i}", value=draw.uniform(-0.5, 0.9))
                for i in draw.sample(range(n), min(10, n))
            )
            for title, (kind, n) in numbered.items()
        },
    }


def random_example(
    draw: random.Random, band: str, vocabulary: list[str], favourites: list[str], n_tokens: int
) -> Example:
    """Text of common and rare tokens, a special one first; about one token in eight fires, the peak on a favourite."""
    tokens = [
        "<|endoftext|>",
        *(draw.choice(WORDS if draw.random() < 0.4 else vocabulary) for _ in range(n_tokens - 1)),
    ]
    activations = [nan, *(draw.uniform(0, 2) if draw.random() < 0.12 else 0.0 for _ in range(n_tokens - 1))]
    peak = draw.randrange(n_tokens // 2, n_tokens)
    tokens[peak], activations[peak] = draw.choice(favourites), draw.uniform(2, 6)
    return Example(
        band=band, tokens=tuple(tokens), activations=tuple(activations), peak=peak,
        document=draw.randrange(500), position=draw.randrange(1, 1024),
    )  # fmt: skip


def random_scores(draw: random.Random, *, lives: bool) -> dict[str, LatentScore]:
    names = [f"{score}_{label}" for score in ("purity", "lift") for label in ("token", "position", "class", "document")]
    return {name: LatentScore(value=draw.random() if lives else nan, floor=draw.uniform(0, 0.2)) for name in names}
