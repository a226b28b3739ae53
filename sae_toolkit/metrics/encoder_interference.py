"""How much the directions overlap that latents *read*: what one latent's pre-activation hears of the others."""

import torch
from jaxtyping import Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.interference import overlap_scores, pair_sums
from sae_toolkit.metrics.matching import unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import FiringCounts
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE, SAEOutput


def reading_directions(sae: AbstractDictionary) -> Float64[Tensor, "d_sae d_in"]:
    """Row j: the direction in raw activation units whose product with x moves the pre-activation of latent j.

    An SAE's encoder columns, taken back through its normaliser. A dictionary with fixed directions has no encoder: its
    coder starts from products with the directions themselves.
    """
    if not isinstance(sae, AbstractSAE):
        return sae.decoder_directions().detach().cpu().double()
    identity = torch.eye(sae.d_in, dtype=sae.W_enc.dtype, device=sae.W_enc.device)
    into_normalised = sae.normaliser.normalise_difference(identity).detach().cpu().double()
    return (into_normalised @ sae.W_enc.detach().cpu().double()).T


class EncoderInterference(Metric):
    """Overlap of the w reading directions of alive latents (see `reading_directions`); NaN where w < 2. n = w.

    `encoder_coherence`, `encoder_mean_abs_cosine`, `encoder_mean_squared_cosine`, `encoder_welch_gap`: what
    `Interference` says of decoder rows, with the same floors.
    `encoder_decoder_cosine`: mean over latents of the cosine between what a latent reads and what it writes; 1 is a
    tied dictionary, lower ones read away from what other latents write. A transcoder has none: it reads and writes at
    different places.
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        del source
        return [cls()]

    def __init__(self) -> None:
        self.firing = FiringCounts()

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        del batch
        self.firing.update(output.sparse_latents())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        alive = self.firing.alive()
        reads = reading_directions(sae)[alive]
        scores = overlap_scores(pair_sums(reads), sae.d_in, prefix="encoder_", gap="encoder_welch_gap")
        if isinstance(sae, AbstractSAE) and sae.transcodes:
            return scores
        tied = (unit_rows(reads) * unit_rows(sae.decoder_directions())[alive]).sum(dim=1)
        return scores | {"encoder_decoder_cosine": mean_score(tied, id="encoder_decoder_cosine/v1")}
