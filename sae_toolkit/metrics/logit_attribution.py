"""Whether the latent of a feature raises the token that the feature promises: direct logit attribution."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.known_latents import KnownLatentsSource
from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import KeptSamples
from sae_toolkit.metrics.firing_matching import match_by_firing
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

ATTRIBUTION_SAMPLES = 50_000


class LogitAttribution(Metric):
    """`logit_attribution_top1`: share of features whose detector's decoder row raises exactly their token the most.

    Over the features that promise the next token. The detector is the best latent on the first half of the first 50,000
    samples (`match_by_firing`); a feature without one counts as missed, one silent in either half is left out.
    The logits of a direction are its product with the unembedding, the last norm's centring and gain included and its
    division by the standard deviation left out: it cannot change their order. Chance: one over the vocabulary.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        if not isinstance(source, KnownLatentsSource) or (unembedding := source.unembedding) is None:
            return []
        return [cls(unembedding.matrix(), source.promised_tokens)]

    def __init__(self, unembedding: Float[Tensor, "d_in n_words"], promised: Int[Tensor, " n_features"]) -> None:
        """`promised`: the token that must come next where a feature holds; -1 for features that promise none."""
        self.unembedding, self.promised = unembedding.detach().cpu().double(), promised
        self.kept = KeptSamples(ATTRIBUTION_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        promising = (self.promised >= 0).nonzero()[:, 0]
        columns = self.kept.feature_columns()
        found = match_by_firing(
            [columns[i] for i in promising.tolist()], self.kept.latent_columns(), self.kept.n_samples
        )
        rows = sae.decoder_directions().detach().cpu().double()[found.latent]
        raised = (rows @ self.unembedding).argmax(1)
        hit = ((raised == self.promised[promising]) & (found.latent >= 0)).double()
        hit = torch.where(found.f1.isnan(), torch.nan, hit)
        return {"logit_attribution_top1": mean_score(hit, id="logit_attribution_top1/v1")}
