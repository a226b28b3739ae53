"""A circuit between latents of two dictionaries, before and behind a layer of attention, against the true one."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.analysis.circuit_recovery import KnownCircuit, circuit_scores, places_in
from sae_toolkit.analysis.detectors import rows_or_zero
from sae_toolkit.analysis.virtual_weights import virtual_weights_through
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.encoder_interference import reading_directions
from sae_toolkit.metrics.firing_matching import FiringMatching
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary


class TrigramDetectors(NamedTuple):
    """The latents that stand for the words of known skip-trigrams, chosen by firing."""

    sources: FiringMatching
    """Before the layer, one per source."""
    destinations: FiringMatching
    """Before the layer, one per destination."""
    outputs: FiringMatching
    """Behind the layer, one per source: what it promises comes next."""
    strengths: Float[Tensor, " d_sae"]
    """How strongly each latent before the layer fires where it does (`mean_when_active`)."""


def latent_circuit_scores(
    weights: CircuitWeights,
    layer: int,
    before: AbstractDictionary,
    behind: AbstractDictionary,
    found: TrigramDetectors,
    *,
    outputs: Int[Tensor, " n_sources"],
    candidates: Int[Tensor, " n_targets"],
    attends: Bool[Tensor, "n_destinations n_sources"],
) -> dict[str, dict[str, Score]]:
    """`circuit_scores` with decoder rows, as strong as they fire, for embeddings; to the logits and, "to latents", on.

    `outputs`: the token that each source promises, among all `candidates`. A source without a latent is missed, a
    destination without one finds its sources by chance. "detectors": how well latents detect what they stand for.
    """
    writes = before.decoder_directions().detach() * found.strengths[:, None]
    has_latent = found.sources.latent >= 0
    known = KnownCircuit(
        sources=rows_or_zero(writes, found.sources.latent),
        destinations=rows_or_zero(writes, found.destinations.latent),
        targets=weights.W_U.detach()[:, candidates],
        expected=torch.where(has_latent, places_in(candidates, outputs), -1),
        attends=attends,
    )
    expected = torch.where(has_latent, found.outputs.latent, -1)
    to_latents = replace(known, targets=reading_directions(behind).T.to(writes), expected=expected)
    scores = circuit_scores(weights, layer, known)
    on = circuit_scores(weights, layer, to_latents)
    scores["to latents"] = {"ov_top1": on["all heads"]["ov_top1"], **on["trigrams"]}
    matched = {"sources": found.sources, "destinations": found.destinations, "outputs": found.outputs}
    scores["detectors"] = {f"f1_{kind}": mean_score(of.f1, id=f"f1_{kind}/v1") for kind, of in matched.items()}
    return scores


def latent_table(
    weights: CircuitWeights,
    layer: int,
    before: AbstractDictionary,
    behind: AbstractDictionary,
    found: TrigramDetectors,
) -> Float[Tensor, "n_sources n_sources"]:
    """Virtual weights through all heads from the latent of each source to that of each output; 0 without a latent."""
    table = virtual_weights_through(before, weights, layer, range(weights.n_heads), behind)
    rows = rows_or_zero(table.left, found.sources.latent)
    return rows @ rows_or_zero(table.right.T, found.outputs.latent).T


def edge_scores(table: Float64[Tensor, "d_before d_behind"], found: TrigramDetectors) -> dict[str, Score]:
    """`edge_top1`: share of sources whose strongest edge, of those to all latents behind, is the one to its output.

    Magnitudes count, as where edges are ranked; a source or output without a latent is missed.
    """
    has_both = (found.sources.latent >= 0) & (found.outputs.latent >= 0)
    strongest = table.abs()[found.sources.latent.clamp(min=0)].argmax(1)
    return {"edge_top1": mean_score(((strongest == found.outputs.latent) & has_both).double(), id="edge_top1/v1")}
