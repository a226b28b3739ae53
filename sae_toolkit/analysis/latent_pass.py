"""One pass over held-out samples that finds out everything a record of a latent tells."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationSource, KnownFeatures
from sae_toolkit.analysis.activation_statistics import ActivationStatistics
from sae_toolkit.analysis.correlated_neurons import CorrelatedNeurons
from sae_toolkit.analysis.examples import Examples, ExamplesConfig
from sae_toolkit.analysis.firing_together import fires_together
from sae_toolkit.analysis.held_out import HeldOut, read_held_out
from sae_toolkit.analysis.latent_chunks import ChunkBuilder, LatentChunk, latents_of, of_chosen
from sae_toolkit.analysis.latent_record import LatentScore, Neighbour, TrueFeature
from sae_toolkit.analysis.latent_scores import label_scores
from sae_toolkit.analysis.logits import APPROXIMATION, direct_logit_effects, has_direct_logit_effects
from sae_toolkit.analysis.matched_features import Directions, match_features
from sae_toolkit.analysis.neighbours import nearest_latents
from sae_toolkit.metrics.co_firing import KeptSamples
from sae_toolkit.metrics.evaluate import inference_mode_of, on_cpu
from sae_toolkit.metrics.kept_latents import KEPT_SAMPLES, KeptLatents
from sae_toolkit.metrics.label_selectivity import LabelSelectivity
from sae_toolkit.metrics.labels import labellings_for
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.sparse_rows import SparseRows

NEAREST, TOGETHER, NEURONS = "nearest by decoder", "fires together with", "correlated neurons"
PROMOTED, SUPPRESSED = "promoted tokens", "suppressed tokens"
Related = Mapping[str, Mapping[int, tuple[Neighbour, ...]]]
"""Lists of neighbours by title and by latent."""


class LatentPass:
    """What one pass finds out about some latents: read with `read`, then asked for records."""

    def __init__(
        self,
        sae: AbstractDictionary,
        source: ActivationSource,
        latents: Sequence[int],
        *,
        config: ExamplesConfig,
        seed: int,
    ) -> None:
        self.sae, self.source, self.latents = sae, source, tuple(latents)
        self.place = place_of(self.latents, sae.d_sae)
        self.builder = ChunkBuilder()
        self.statistics = ActivationStatistics(len(self.latents))
        self.examples = Examples(self.latents, config=config, seed=seed)
        self.fired = KeptLatents(KEPT_SAMPLES)
        self.labels = LabelSelectivity(labellings_for(source))
        self.truth = None if source.feature_names is None else KeptSamples(KEPT_SAMPLES)
        self.neuron_hook = source.neuron_hooks.get(next(iter(source.sites)))
        self.neurons = CorrelatedNeurons()
        # a crosscoder writes at several places, and not all need go into the residual stream
        self.writes_residual = len(source.sites) == 1 and has_direct_logit_effects(source)
        self.excluded = Counter[str]()

    def read(self, n_samples: int, *, batch_size: int, seed: int) -> None:
        """One pass over up to n_samples of the eval split; nothing is left changed."""
        parts = read_held_out(
            self.source, n_samples=n_samples, neuron_hook=self.neuron_hook, batch_size=batch_size, seed=seed
        )
        device = self.sae.decoder_directions().device
        with torch.no_grad(), inference_mode_of([self.sae]):
            for part in parts:
                self.update(part, latents_of(self.sae, part.batch.activations.to(device)))
            self.take(self.builder.take())
        if self.statistics.n_samples == 0:
            raise ValueError("describe_latents: the eval split gave no sample. Give more text or more rows.")

    def update(self, part: HeldOut, latents: SparseRows) -> None:
        """Adds samples and all their latents."""
        self.excluded.update(part.batch.excluded)
        chosen = of_chosen(latents, self.place)
        self.take(self.builder.add(part, chosen))
        if part.neurons is not None:
            self.neurons.update(chosen, part.neurons)
        if self.fired.full:
            return
        batch = on_cpu(part.batch)  # what follows is taken from the first samples; none of it reads a reconstruction
        self.fired.update(batch, SAEOutput(batch.activations, latents))
        self.labels.update(batch, SAEOutput(batch.activations, chosen))
        if self.truth is not None:
            self.truth.update(batch, SAEOutput(batch.activations, chosen))

    def take(self, chunk: LatentChunk | None) -> None:
        if chunk is not None:
            self.statistics.update(chunk)
            self.examples.update(chunk)

    def related(self, n_top: int) -> Related:
        """Lists of neighbours, by latent."""
        lists = {
            NEAREST: nearest_latents(self.sae.decoder_directions(), self.latents, n_top),
            TOGETHER: fires_together(self.fired.matrix(), self.latents, n_top),
        }
        if self.neuron_hook is not None:
            lists[NEURONS] = self.neurons.strongest(n_top)
        related = {title: dict(zip(self.latents, rows, strict=True)) for title, rows in lists.items()}
        if n_top > 0 and self.writes_residual:
            effects = direct_logit_effects(self.sae, self.source, self.latents, n_top)
            related[PROMOTED] = {latent: promoted for latent, (promoted, _) in effects.items()}
            related[SUPPRESSED] = {latent: suppressed for latent, (_, suppressed) in effects.items()}
        return related

    def features(self) -> tuple[list[TrueFeature | None], dict[str, list[LatentScore]]]:
        """The matched true features and their scores; none where the truth is unknown."""
        names = self.source.feature_names
        if self.truth is None or names is None:
            return [None] * len(self.latents), {}
        directions = None
        if isinstance(self.source, KnownFeatures):
            written = self.sae.decoder_directions()[torch.tensor(self.latents)].detach()
            directions = Directions(written, self.source.directions)
        return match_features(self.truth, names, directions)

    def label_scores(self) -> dict[str, list[LatentScore]]:
        """By score name, how well labels explain when each latent fires."""
        return label_scores(self.labels.labellings, self.labels.tables(), len(self.latents))

    def notes(self) -> dict[str, str]:
        """What the reader must know of the lists and scores."""
        n = self.fired.n_samples
        notes = {
            NEAREST: "Cosine of decoder directions in the units of the raw activations.",
            TOGETHER: f"Correlation (phi) of the two latents' firing over the first {n:,} samples.",
        }
        if self.neuron_hook is not None:
            notes[NEURONS] = f"Pearson's r with the neurons at {self.neuron_hook} over all samples."
        if self.writes_residual:
            notes[PROMOTED] = APPROXIMATION
        if self.labels.labellings:
            n = self.labels.kept.n_samples
            notes["scores"] = f"Scores by labels are taken over the first {n:,} samples; docs/metrics.md defines them."
        return notes


def place_of(latents: Sequence[int], d_sae: int) -> Int[Tensor, " d_sae"]:
    """The place of each latent among some; -1 for the others."""
    place = torch.full((d_sae,), -1)
    place[torch.tensor(latents)] = torch.arange(len(latents))
    return place
