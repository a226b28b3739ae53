"""What a head attends to (QK) and what it writes (OV), in terms of tokens or of latents (Elhage et al. 2021).

With row vectors: OV = W_V W_O and QK = W_Q W_K^T / sqrt(d_head), both `[d_model d_model]` of rank d_head. In the token
basis W_E OV W_U and W_E QK W_E^T; in the latent basis decoder rows stand for W_E and reading directions, or W_U, for
W_U. Where a model has norms, the numbers are those of tokens whose residual stream has scale 1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.analysis.factored import Factored
from sae_toolkit.saes.base import AbstractDictionary


def ov_circuit(weights: CircuitWeights, layer: int, heads: Sequence[int]) -> Factored:
    """What the heads add where they attend fully, summed over the heads: x @ OV."""
    weights.check_head(layer, *heads)
    left = torch.cat([weights.W_V[layer, head] for head in heads], dim=1)
    return Factored(left.detach(), torch.cat([weights.W_O[layer, head] for head in heads]).detach())


def qk_circuit(weights: CircuitWeights, layer: int, head: int, *, distance: int = 0) -> Factored:
    """Attention scores query @ QK @ key^T, before the softmax; positions and biases left out.

    `distance`: tokens from the key back from the query; it matters where positions turn queries and keys (Llama).
    """
    weights.check_head(layer, head)
    queries, keys = weights.W_Q[layer, head].detach(), weights.W_K[layer, head].detach()
    if weights.rotary is not None:
        if not 0 <= distance < len(weights.rotary.cos):
            raise ValueError(
                f"qk_circuit: distance={distance} asked, but positions are 0 to {len(weights.rotary.cos) - 1}."
            )
        queries, keys = weights.rotary.turned(queries, distance), weights.rotary.turned(keys, 0)
    return Factored(queries / weights.d_head**0.5, keys.T)


def key_preference(
    weights: CircuitWeights, layer: int, head: int, keys: Float[Tensor, "n d_model"]
) -> Float[Tensor, " n"]:
    """What the query bias adds to the scores of some keys, whatever asks: b_Q W_K^T y^T / sqrt(d_head)."""
    weights.check_head(layer, head)
    preferred: Tensor = keys @ (weights.W_K[layer, head] @ weights.b_Q[layer, head]).detach() / weights.d_head**0.5
    return preferred


def token_ov(weights: CircuitWeights, layer: int, heads: Sequence[int]) -> Factored:
    """`[d_vocab d_vocab]`: what attending to a token does to the logit of another, summed over heads."""
    return ov_circuit(weights, layer, heads).between(weights.W_E.detach(), weights.W_U.detach())


def token_qk(weights: CircuitWeights, layer: int, head: int, *, distance: int = 0) -> Factored:
    """`[d_vocab d_vocab]`: the score of a query token (row) for a key token (column)."""
    embedding = weights.W_E.detach()
    return qk_circuit(weights, layer, head, distance=distance).between(embedding, embedding.T)


def latent_logits(writer: AbstractDictionary, weights: CircuitWeights) -> Factored:
    """`[d_sae d_vocab]`: what one unit of a latent does to the logits directly."""
    return Factored(writer.decoder_directions().detach(), weights.W_U.detach())


def latent_ov(writer: AbstractDictionary, weights: CircuitWeights, layer: int, heads: Sequence[int]) -> Factored:
    """`[d_sae d_vocab]`: what attending to one unit of a latent does to the logits."""
    return ov_circuit(weights, layer, heads).between(writer.decoder_directions().detach(), weights.W_U.detach())


def latent_qk(
    asking: AbstractDictionary,
    answering: AbstractDictionary,
    weights: CircuitWeights,
    layer: int,
    head: int,
    *,
    distance: int = 0,
) -> Factored:
    """`[d_sae d_sae]`: the score that a unit of a latent at the query (row) gives to one at the key (column)."""
    queries, keys = (sae.decoder_directions().detach() for sae in (asking, answering))
    return qk_circuit(weights, layer, head, distance=distance).between(queries, keys.T)
