"""Whether latents are levers: exchanging the latent of one value for that of another must exchange the prediction."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sae_toolkit.activations.known_latents import KnownLatentsSource
from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.analysis.steering import Clamp, Edit, Remove, Where, steered
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column, KeptSamples
from sae_toolkit.metrics.firing_matching import match_by_firing
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.seeding import generator_for

STEERED_SAMPLES = 50_000


class Swap(NamedTuple):
    """One exchange: at a token where value a holds, b of the same thing takes its place."""

    document: int
    position: int
    held: int
    """Number of value a among all values."""
    wanted: int
    """Number of value b."""


class ValueSteering(Metric):
    """Exchanges of values at tokens of the known language where one must be said next ("bell" -> "polished").

    The latent of a value is its best detector on the first half of the first 50,000 samples (`match_by_firing`). At a
    token of the other half where a holds, a's latent is removed and b's clamped to `strength` times its mean activation
    over the samples of b; nothing else is touched, and b is another value of the same thing, at random.

    `steering_flips`: share of exchanges after which b's word has the highest logit. `steering_flips_random`, its floor:
    the same with a random latent, at as many times its own mean activation, in place of b's. `steering_forgets`: share
    after which a's word is no longer the most likely when a's latent is removed and nothing put in its place. An
    exchange between values of which one has no latent counts as failed. Built by hand: every exchange runs the model.
    """

    def __init__(
        self, source: KnownLatentsSource, hook: str, *, n_swaps: int = 500, strength: float = 2.0, seed: int = 0
    ) -> None:
        if "value" not in source.features.columns:
            raise ValueError(
                f"ValueSteering: the source asks about {', '.join(source.config.families)}. Add 'value' to them."
            )
        if n_swaps < 1:
            raise ValueError(f"ValueSteering: n_swaps={n_swaps} asked, but at least 1 exchange is needed.")
        self.source, self.hook, self.n_swaps, self.strength, self.seed = source, hook, n_swaps, strength, seed
        self.kept = KeptSamples(STEERED_SAMPLES)
        self.places: list[Tensor] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)
        assert batch.document_ids is not None
        assert batch.positions is not None
        self.places.append(torch.stack([batch.document_ids, batch.positions], dim=1).cpu())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        values = self.kept.feature_columns()[self.source.features.columns["value"]]
        latents = self.kept.latent_columns()
        detectors = match_by_firing(values, latents, self.kept.n_samples).latent.tolist()
        alive = [number for number, column in enumerate(latents) if (column.values > 0).any()]
        generator = generator_for(self.seed, "value steering")
        outcomes = torch.zeros(self.n_swaps, 3, dtype=torch.float64)
        for row, swap in enumerate(self.swaps(values, generator)):
            a, b = detectors[swap.held], detectors[swap.wanted]
            others = [latent for latent in alive if latent not in (a, b)]
            if min(a, b) < 0 or not others:
                continue
            other = others[int(torch.randint(len(others), (), generator=generator))]
            wanted = Clamp(b, self.strength * typical_activation(latents[b], values[swap.wanted]))
            control = Clamp(other, self.strength * typical_activation(latents[other], latents[other]))
            outcomes[row, 0] = self.predicted(sae, swap, [Remove(a), wanted]) == swap.wanted
            outcomes[row, 1] = self.predicted(sae, swap, [Remove(a), control]) == swap.wanted
            outcomes[row, 2] = self.predicted(sae, swap, [Remove(a)]) != swap.held
        names = ("steering_flips", "steering_flips_random", "steering_forgets")
        scores = {name: mean_score(outcomes[:, i], id=f"{name}/v1") for i, name in enumerate(names)}
        scores["steering_flips"] = replace(scores["steering_flips"], floor=scores["steering_flips_random"].value)
        return scores

    def swaps(self, values: Sequence[Column], generator: torch.Generator) -> Iterator[Swap]:
        """Exchanges at random samples of the second half at which some value holds."""
        half = self.kept.n_samples // 2
        held = [(int(sample), value) for value, column in enumerate(values) for sample in column.samples]
        held = [(sample, value) for sample, value in held if sample >= half]
        if not held:
            raise ValueError("ValueSteering: no value holds in the second half of the samples. Give more samples.")
        places, lexicon = torch.cat(self.places), self.source.language.lexicon
        n = len(lexicon.values) // len(lexicon.nouns)  # values of one thing
        for _ in range(self.n_swaps):
            sample, value = held[int(torch.randint(len(held), (), generator=generator))]
            step = 1 + int(torch.randint(n - 1, (), generator=generator))
            document, position = places[sample].tolist()
            yield Swap(document, position, value, value // n * n + (value + step) % n)

    def predicted(self, sae: AbstractDictionary, swap: Swap, edits: Sequence[Edit]) -> int:
        """The number of the value whose word has the highest logit of all words; negative or too large for no value."""
        model = self.source.model
        row = self.source.tokens[swap.document, : swap.position + 1]
        where = Where(positions=(swap.position,))
        with steered(model, sae, self.hook, edits, where=where):
            word = int(model.logits(row[None])[0, -1].argmax())
        return word - self.source.language.lexicon.first["value"]


def typical_activation(latent: Column, held: Column) -> float:
    """Mean activation of a latent over the samples of something, of those at which it fires; over all if they never
    meet."""
    together = np.isin(latent.samples, held.samples) & (latent.values > 0)
    chosen = latent.values[together] if together.any() else latent.values[latent.values > 0]
    return float(chosen.mean())
