"""How much of what a latent reads out of an activation is the work of other features, before any nonlinearity."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import divide, mean_score
from sae_toolkit.metrics.co_firing import KeptColumns, coefficients_of, matrix_of
from sae_toolkit.metrics.encoder_interference import reading_directions
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import FiringCounts
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

CROSS_TALK_SAMPLES = 10_000
LATENTS_AT_ONCE = 64


class CrossTalk(Metric):
    """`cross_talk_energy`: mean over matched latents of Var(others) / (Var(own) + Var(others)), first 10,000 samples.

    The product of x = sum_i c_i G_i with what latent j reads (e_j, see `reading_directions`) is c_p (e_j . G_p), its
    own feature's part, plus the sum over i != p of c_i (e_j . G_i), the others' part. 0: only the own feature is
    heard; 1: only others. Variances, because a bias takes away what is constant. Features are paired with alive latents
    (Hungarian on cosines); NaN where neither part varies. Large values are the price of superposition, which a
    threshold can still remove: what remains after it is `Leakage`.
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls(source.directions)] if isinstance(source, KnownFeatures) else []

    def __init__(self, directions: Float[Tensor, "n_features d_in"]) -> None:
        self.directions = directions.detach()
        self.firing = FiringCounts()
        self.kept = KeptColumns(CROSS_TALK_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(coefficients_of(batch))
        self.firing.update(output.sparse_latents())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        latent = match_latents(self.directions, sae.decoder_directions(), self.firing.alive()).latent
        matched = (latent >= 0).nonzero()[:, 0]
        columns = self.kept.columns()
        coefficients = matrix_of(columns, self.kept.n_samples)
        true, reads = self.directions.cpu().double().numpy(), reading_directions(sae).numpy()
        shares = [np.zeros(0)]
        for features in torch.split(matched, LATENTS_AT_ONCE):
            heard = true @ reads[latent[features].numpy()].T  # [n_features block]
            everything = coefficients @ heard
            own = np.zeros_like(everything)
            for column, i in enumerate(features.tolist()):
                own[columns[i].samples, column] = columns[i].values * heard[i, column]
            others = (everything - own).var(axis=0)
            shares.append(divide(others, own.var(axis=0) + others, otherwise=np.nan))
        return {"cross_talk_energy": mean_score(torch.from_numpy(np.concatenate(shares)), id="cross_talk_energy/v1")}
