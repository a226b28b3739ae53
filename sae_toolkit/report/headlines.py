"""The few scores that a reader looks at first: what they are called, what they ask, which way is up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

from sae_toolkit.report.expectation import ControlScore, NamedScore


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One score that gets a card."""

    name: str
    label: str
    question: str
    opponents_compete: bool = True
    """More is better, and a dictionary that is no SAE can have it."""


HEADLINES = (
    Headline(
        name="mean_matched_cosine",
        label="Mean matched cosine",
        question="How well does each true feature's own latent point along it?",
    ),
    Headline(
        name="recall_at_0.9",
        label="Recall at 0.9",
        question="What share of true features has a latent of its own within cosine 0.9?",
    ),
    Headline(
        name="explained_variance",
        label="Explained variance",
        question="How much of the activations comes back?",
    ),
    Headline(
        name="ce_recovered_mean",
        label="Loss recovered",
        question="How much of what the model loses with mean activations does the reconstruction give back?",
    ),
    Headline(name="l0", label="L0", question="How many latents fire per sample?", opponents_compete=False),
    Headline(
        name="dead_fraction",
        label="Dead latents",
        question="What share of latents never fired on held-out data?",
        opponents_compete=False,
    ),
)


def label(name: str, headlines: Iterable[Headline] = HEADLINES) -> str:
    """A score's name for reading."""
    known = {headline.name: headline.label for headline in headlines}
    return known[name] if name in known else name.replace("_", " ")


def present_headlines(
    scores: Iterable[NamedScore | ControlScore], headlines: Iterable[Headline] = HEADLINES
) -> list[Headline]:
    """The headlines that were measured, in their fixed order."""
    names = {score.name for score in scores}
    return [headline for headline in headlines if headline.name in names]


def best_opponent(headline: Headline, controls: Sequence[ControlScore]) -> ControlScore | None:
    """The strongest other method; None where none was tried or more is not better."""
    rivals = [c for c in controls if c.name == headline.name and c.role == "opponent" and not isnan(c.score.value)]
    return max(rivals, key=lambda c: c.score.value, default=None) if headline.opponents_compete else None
