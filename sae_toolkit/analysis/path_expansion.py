"""The logits of an attention-only model as a sum over paths of tokens through heads (Elhage et al. 2021).

With attention patterns (and the scales of norms) held at what they are on a text, everything is linear in the token
embeddings: T = Id (x) W_E W_U + sum_h A^h (x) W_E OV^h W_U + sum_{h, g} (A^g A^h) (x) W_E OV^h OV^g W_U + ...
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.activations.next_token_training import losses_after

MOST_PATHS = 4096


class Path(NamedTuple):
    """Where a contribution comes from, and through which heads it went."""

    start: str
    """"tokens", "positions", or "bias <layer>": what the biases of a layer add."""
    heads: tuple[tuple[int, int], ...]
    """(layer, head) in the order of layers; none for the direct path."""


class PathTerm(NamedTuple):
    """One path and what it adds to the logits before the unembedding's bias."""

    path: Path
    residual: Float[Tensor, "rows ctx d_model"]
    """What it adds to the last residual stream; `@ weights.W_U` gives logits."""


class FrozenText(NamedTuple):
    """What is held fixed: patterns, and scales of norms, on some rows of tokens."""

    patterns: list[Float[Tensor, "rows n_heads ctx ctx"]]
    scales: list[Float[Tensor, "rows ctx 1"]]
    """Before each layer, and before the unembedding."""


def freeze(weights: CircuitWeights, tokens: Int[Tensor, "rows ctx"]) -> FrozenText:
    """Runs the model once."""
    residuals = weights.residuals(tokens)
    patterns = [weights.pattern(layer, residuals[layer]) for layer in range(weights.n_layers)]
    return FrozenText(patterns, [weights.scale(residual) for residual in residuals])


def head_paths(n_layers: int, n_heads: int, first: int = 0) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every choice of at most one head of each layer from `first` on, shorter ones first."""
    layers = range(first, n_layers)
    for order in range(len(layers) + 1):
        for chosen in combinations(layers, order):
            for heads in product(range(n_heads), repeat=order):
                yield tuple(zip(chosen, heads, strict=True))


@torch.no_grad()
def expand_paths(weights: CircuitWeights, tokens: Int[Tensor, "rows ctx"]) -> Iterator[PathTerm]:
    """Every path, one at a time; with `b_U` their sum is what the model computes, up to rounding."""
    n_paths = (1 + weights.n_heads) ** weights.n_layers
    if n_paths > MOST_PATHS:
        raise ValueError(
            f"expand_paths: {weights.n_layers} layers of {weights.n_heads} heads have {n_paths} paths, more than "
            f"{MOST_PATHS}. Expand a model of fewer layers."
        )
    frozen = freeze(weights, tokens)
    starts = {"tokens": (0, weights.W_E[tokens])}
    if weights.W_pos is not None:
        positions = weights.W_pos[: tokens.shape[1]].expand(*tokens.shape, -1)
        starts["positions"] = (0, positions)
    for layer in range(weights.n_layers):
        added = torch.einsum("he,hed->d", weights.b_V[layer], weights.W_O[layer]) + weights.b_O[layer]
        if added.any():
            starts[f"bias {layer}"] = (layer + 1, added.expand(*tokens.shape, -1))
    for start, (first, embedded) in starts.items():
        for heads in head_paths(weights.n_layers, weights.n_heads, first):
            moved = embedded
            for layer, head in heads:
                moved = through_head(weights, frozen, layer, head, moved)
            yield PathTerm(Path(start, heads), moved / frozen.scales[-1])


def through_head(
    weights: CircuitWeights, frozen: FrozenText, layer: int, head: int, residual: Float[Tensor, "rows ctx d_model"]
) -> Float[Tensor, "rows ctx d_model"]:
    """What one head makes of a part of the residual stream, biases left out."""
    values = residual / frozen.scales[layer] @ weights.W_V[layer, head]
    return frozen.patterns[layer][:, head] @ values @ weights.W_O[layer, head]


@torch.no_grad()
def losses_by_order(weights: CircuitWeights, tokens: Int[Tensor, "rows ctx"]) -> list[float]:
    """Mean next-token loss in nats with paths through at most 0, 1, 2, ... heads; the last one is the model's."""
    sums = [torch.zeros(*tokens.shape, weights.d_model).to(weights.W_E) for _ in range(weights.n_layers + 1)]
    for term in expand_paths(weights, tokens):
        for order in range(len(term.path.heads), weights.n_layers + 1):
            sums[order] += term.residual
    return [float(losses_after(part @ weights.W_U + weights.b_U, tokens).double().mean()) for part in sums]


@torch.no_grad()
def path_error(weights: CircuitWeights, tokens: Int[Tensor, "rows ctx"]) -> float:
    """The largest |sum over paths - what the model computes| of any logit."""
    total = torch.zeros(*tokens.shape, weights.d_model).to(weights.W_E)
    for term in expand_paths(weights, tokens):
        total += term.residual
    return float((total @ weights.W_U + weights.b_U - weights.logits(tokens)).abs().max())
