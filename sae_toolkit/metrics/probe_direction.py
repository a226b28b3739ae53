"""Whether the latent that detects a feature also points where a supervised probe finds it."""

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import KeptSamples
from sae_toolkit.metrics.firing_matching import match_by_firing
from sae_toolkit.metrics.matching import unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

DIRECTION_SAMPLES = 50_000


class ProbeDirection(Metric):
    """`probe_direction_cosine`: mean over features of cos(decoder row of its detector, direction of the probe).

    The directions are those of `probe_features` (or any others, one row per feature), the detectors those of
    `match_by_firing` on the first 50,000 samples. A feature without a detector counts 0; features silent in either half
    and those whose direction is 0 or NaN are left out. Built by hand, since the directions must be measured first.
    """

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = directions.detach()
        self.kept = KeptSamples(DIRECTION_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        known = (self.directions.norm(dim=1) > 0).nonzero()[:, 0]  # NaN is not above 0
        columns = self.kept.feature_columns()
        found = match_by_firing([columns[i] for i in known.tolist()], self.kept.latent_columns(), self.kept.n_samples)
        rows = unit_rows(sae.decoder_directions())[found.latent]
        cosine = (rows * unit_rows(self.directions[known])).sum(1)
        cosine = torch.where(found.latent >= 0, cosine, 0.0)
        cosine = torch.where(found.f1.isnan(), torch.nan, cosine)
        return {"probe_direction_cosine": mean_score(cosine, id="probe_direction_cosine/v1")}
