"""What latents do to latents further on, measured: one latent is taken out at a time, the rest of the model runs on.

The truth that weights are held against: effect_ij = E[a_j without i] - E[a_j], with a_i d_i subtracted wherever i
fires. Everything the model does between the two places reacts, attention patterns and norms included.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.activations.hooks import parse_hook
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.analysis.mean_products import MeanProducts
from sae_toolkit.analysis.virtual_weights import virtual_weights, virtual_weights_through
from sae_toolkit.saes.base import AbstractDictionary
from sae_toolkit.sparse_rows import SparseRows


class Site(NamedTuple):
    """A dictionary and the place in the model that it reads."""

    dictionary: AbstractDictionary
    hook: str


class Ablation(NamedTuple):
    """Mean activations of the latents of the reader, and what taking out each latent of the writer does to them."""

    clean: Float64[Tensor, " d_reader"]
    """With nothing taken out."""
    effects: Float64[Tensor, "n_latents d_reader"]
    """With one latent taken out, minus `clean`."""


@torch.no_grad()
def edge_effects(
    model: LanguageModel,
    writer: Site,
    reader: Site,
    tokens: Int[Tensor, "rows ctx"],
    latents: Sequence[int],
) -> Ablation:
    """Takes out one latent of the writer after another and looks at all latents of the reader.

    The writer's place must lie before the reader's. One forward pass per latent, over all the tokens at once.
    """
    if parse_hook(writer.hook).depth >= parse_hook(reader.hook).depth:
        raise ValueError(
            f"edge_effects: {writer.hook} is asked to act on {reader.hook}, which the model computes first. Give a "
            "writer that comes before the reader."
        )
    clean = mean_latents(model, reader, tokens, {})
    directions = writer.dictionary.decoder_directions()
    effects = torch.zeros(len(latents), len(clean), dtype=torch.float64)
    for place, latent in enumerate(latents):

        def without(x: Tensor, latent: int = latent) -> Tensor:
            acts = writer.dictionary.forward(x).dense_latents()[..., latent]
            return x - acts[..., None] * directions[latent]

        effects[place] = mean_latents(model, reader, tokens, {writer.hook: without}) - clean
    return Ablation(clean, effects)


def mean_latents(
    model: LanguageModel, reader: Site, tokens: Int[Tensor, "rows ctx"], replace: dict[str, object]
) -> Float64[Tensor, " d_reader"]:
    """Mean activation of each latent over all tokens, with the model changed further up."""
    found: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        found.append(reader.dictionary.forward(x).dense_latents().double().flatten(0, -2).mean(0))
        return x

    model.logits(tokens, {**replace, reader.hook: look})  # type: ignore[dict-item]
    return found[0]


class EdgeWeights(NamedTuple):
    """Four accounts of the same edges, `[d_writer d_reader]`, through the residual stream and all heads of a layer."""

    raw: Float64[Tensor, "d_writer d_reader"]
    """|V_ij| of the residual stream plus those of all heads: what weights alone say."""
    weighted: Float64[Tensor, "d_writer d_reader"]
    """sum over ways of E[a_i a_j] V_ij, with the attention of each head in its own E."""
    expected: Float64[Tensor, "d_writer d_reader"]
    """The same with E[a_i (a_j > 0)]: what taking a_i out would do to a_j if nothing else reacted."""
    share: Float64[Tensor, "d_writer d_reader"]
    """That over E[a_j]: the part of a_j that is due to a_i; 0 where a_j never fires."""


@torch.no_grad()
def edge_weights(
    weights: CircuitWeights,
    layer: int,
    writer: AbstractDictionary,
    reader: AbstractDictionary,
    before: Float[Tensor, "rows ctx d_model"],
    behind: Float[Tensor, "rows ctx d_model"],
) -> EdgeWeights:
    """From the residual stream before a layer to the one behind its attention (hook_resid_mid where there are MLPs)."""
    pattern, scale = weights.pattern(layer, before), weights.scale(before)
    writes = [writer.forward(row).sparse_latents() for row in before]
    reads = [reader.forward(row).sparse_latents() for row in behind]
    ways = [virtual_weights(writer, reader)]
    ways += [virtual_weights_through(writer, weights, layer, (head,), reader) for head in range(weights.n_heads)]
    tables = torch.stack([way.dense().double() for way in ways])
    found = []
    for kind in (reads, [fires(rows) for rows in reads]):
        total = torch.zeros_like(tables[0])
        for number, table in enumerate(tables):
            products = MeanProducts(*table.shape)
            for row, (write, read) in enumerate(zip(writes, kind, strict=True)):
                if number == 0:
                    products.update(write, read)
                else:
                    products.update_through(pattern[row, number - 1] / scale[row, :, 0], write, read)
            total += products.mean() * table
        found.append(total)
    strength = torch.stack([rows.to_dense().double().sum(0) for rows in reads]).sum(0) / behind.shape[:2].numel()
    weighted, expected = found
    share = expected / torch.where(strength > 0, strength, torch.inf)
    return EdgeWeights(tables.abs().sum(0), weighted, expected, share)


def fires(rows: SparseRows) -> SparseRows:
    """1 where a latent is active."""
    return rows.with_values((rows.values > 0).to(rows.values.dtype))


def edge_average_precision(
    scores: Float64[Tensor, "n_writers n_readers"], edges: Bool[Tensor, "n_writers n_readers"]
) -> float:
    """Area under the precision-recall curve of |scores| against true edges; chance scores the share of edges."""
    from sklearn.metrics import average_precision_score  # noqa: PLC0415  (slow import)

    if not edges.any():
        return float("nan")
    return float(average_precision_score(edges.flatten().numpy(), scores.abs().flatten().numpy()))


def edge_precision(scores: Float64[Tensor, "n_writers n_readers"], edges: Bool[Tensor, "n_writers n_readers"]) -> float:
    """Share of true edges among the strongest n, where n are true: precision and recall are equal there."""
    n = int(edges.sum())
    return float(edges.flatten()[scores.abs().flatten().topk(n).indices].double().mean()) if n else float("nan")
