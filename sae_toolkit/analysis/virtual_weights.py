"""How strongly a latent feeds a latent further on, through the residual stream or through heads.

The virtual weights of Elhage et al. 2021 between SAEs: V_ij = d_i . e_j with decoder row d_i of what writes and reading
direction e_j of what reads; with heads between them, d_i W_V W_O e_j. Raw ones are mostly interference: the directions
of latents that never fire together overlap, too. E[a_i a_j] V_ij counts what flows in the data (`MeanProducts`).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.analysis.factored import Entries, Factored
from sae_toolkit.analysis.head_circuits import ov_circuit
from sae_toolkit.analysis.mean_products import MeanProducts
from sae_toolkit.metrics.encoder_interference import reading_directions
from sae_toolkit.saes.base import AbstractDictionary


def virtual_weights(writer: AbstractDictionary, reader: AbstractDictionary) -> Factored:
    """`[d_sae of the writer, d_sae of the reader]`, through the residual stream of the same token."""
    return Factored(*ends(writer, reader))


def virtual_weights_through(
    writer: AbstractDictionary,
    weights: CircuitWeights,
    layer: int,
    heads: Sequence[int],
    reader: AbstractDictionary,
) -> Factored:
    """The same through heads that attend fully to the writer's token, summed over the heads."""
    return ov_circuit(weights, layer, heads).between(*ends(writer, reader))


def ends(
    writer: AbstractDictionary, reader: AbstractDictionary
) -> tuple[Float[Tensor, "d_writer d_model"], Float[Tensor, "d_model d_reader"]]:
    """Decoder rows and reading directions, both for raw activations."""
    writes = writer.decoder_directions().detach()
    reads = reading_directions(reader).T.to(writes)
    if writes.shape[1] != reads.shape[0]:
        raise ValueError(
            f"virtual weights: the writer has d_in={writes.shape[1]}, the reader d_in={reads.shape[0]}. Both must read "
            "the residual stream (or what is added to it) of one model."
        )
    return writes, reads


def strongest_edges(edges: Factored, n: int, products: MeanProducts | None = None) -> Entries:
    """The n edges of largest |V_ij|, or of largest |E[a_i a_j] V_ij|."""
    if products is None:
        return edges.strongest(n)
    mean = products.mean()
    if mean.shape != torch.Size(edges.shape):
        raise ValueError(
            f"strongest_edges: edges of shape {edges.shape}, products of shape {tuple(mean.shape)} given. Count the "
            "products of the same two SAEs."
        )
    return edges.strongest(n, lambda rows: mean[rows])
