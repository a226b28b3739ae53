"""What is known of a latent, in one record: what a dashboard shows and an export writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Example:
    """Consecutive tokens around one activation of a latent; on a source without tokens, one sample without a text."""

    band: str
    """Which activations it stands for: "top", or a range of quantiles of the nonzero ones such as "50-75 %"."""
    tokens: tuple[str, ...]
    """Texts, leading spaces included; empty where samples are no tokens."""
    activations: tuple[float, ...]
    """Of this latent at each token, NaN where it was left out (special tokens); one entry where there are no tokens."""
    peak: int
    """Index of the activation it was chosen for."""
    document: int | None
    """Number of the document; None where there are none."""
    position: int | None
    """Position of the peak in the model's row of tokens; None where there is none."""
    truth: tuple[tuple[str, float], ...] = ()
    """Where the truth is known: the features that fire at the peak by name, strongest first, with their coefficient."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of nonzero activations between consecutive edges."""

    edges: tuple[float, ...]
    """One more than counts."""
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Something related to a latent: another latent, a neuron, a token."""

    index: int
    """Number of the latent, neuron or token."""
    label: str
    """What to show; the text of a token, "latent 12", "neuron 7"."""
    value: float
    """Cosine, correlation or logit effect, as the list it stands in says."""


@dataclass(frozen=True, kw_only=True)
class LatentScore:
    """One score of one latent, with what chance scores."""

    value: float
    """NaN where the question has no answer, such as for a latent that never fired."""
    floor: float | None = None
    """The same score of what knows nothing, such as shuffled labels; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class TrueFeature:
    """The true feature that a latent is matched to, where the truth is known."""

    index: int
    name: str
    cosine: float | None
    """Of the latent's decoder direction with the feature's; None where features have no direction."""
    f1: float
    """Of the latent's firing (z > 0) as a detector of the feature's."""


@dataclass(frozen=True, kw_only=True)
class LatentRecord:
    """Everything about one latent."""

    latent: int
    density: float
    """Share of samples on which it is nonzero."""
    mean_activation: float
    """Over the samples on which it is nonzero; NaN if there are none."""
    max_activation: float
    """0 if it never fired."""
    histogram: Histogram | None
    """None if it never fired."""
    examples: tuple[Example, ...]
    """Strongest first, band by band."""
    related: Mapping[str, tuple[Neighbour, ...]] = field(default_factory=dict)
    """Lists by title, such as "promoted tokens", "suppressed tokens", "nearest by decoder", "fires together with",
    "correlated neurons"; each in the order in which to show it."""
    scores: Mapping[str, LatentScore] = field(default_factory=dict)
    """By name, such as purity_token; every record of a dictionary has the same names."""
    feature: TrueFeature | None = None


@dataclass(frozen=True, kw_only=True)
class DictionaryRecord:
    """Records of an SAE's latents, and of what they were taken."""

    title: str
    d_sae: int
    """Number of latents of the SAE, of which some may have no record here."""
    n_samples: int
    """Held-out samples (tokens) that every statistic is taken over."""
    excluded: Mapping[str, int]
    """Samples left out, by reason."""
    latents: tuple[LatentRecord, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    """What the reader must know, by the related list or score it is about: which approximation a logit effect is."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """SAE and source, JSON-ready."""
