"""How much a head reads of what an earlier head writes: Q-, K- and V-composition (Elhage et al. 2021).

With row vectors, OV = W_V W_O of the earlier head and QK = W_Q W_K^T, OV' = W_V' W_O' of the later one:
Q ||OV QK|| / (||OV|| ||QK||), K ||OV QK^T|| / (||OV|| ||QK||), V ||OV OV'|| / (||OV|| ||OV'||), Frobenius norms.
Heads that know nothing of each other score about d_model ** -1/2, and that is the floor of every score.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights


class Composition(NamedTuple):
    """One score per pair of heads (earlier layer, its head, later layer, its head); NaN where no layer is earlier."""

    q: Float64[Tensor, "n_layers n_heads n_layers n_heads"]
    k: Float64[Tensor, "n_layers n_heads n_layers n_heads"]
    v: Float64[Tensor, "n_layers n_heads n_layers n_heads"]


class RandomComposition(NamedTuple):
    """What pairs of random heads of one size score."""

    mean: float
    sd: float

    def z(self, scores: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """Standard deviations above chance."""
        return (scores - self.mean) / self.sd


def composition_scores(weights: CircuitWeights) -> Composition:
    """Every pair of heads. Rotary positions are left out: a query and a key at the same position."""
    layers, heads = weights.n_layers, weights.n_heads
    found = Composition(*(torch.full((layers, heads, layers, heads), torch.nan, dtype=torch.float64) for _ in range(3)))
    stacks = [W.detach().double() for W in (weights.W_Q, weights.W_K, weights.W_V, weights.W_O)]
    for early in range(layers):
        writes = stacks[2][early], stacks[3][early].mT
        for late in range(early + 1, layers):
            W_Q, W_K, W_V, W_O = (W[late] for W in stacks)
            reads = {"q": (W_Q, W_K), "k": (W_K, W_Q), "v": (W_V, W_O.mT)}
            for kind, pair in reads.items():
                getattr(found, kind)[early, :, late] = scores_between(writes, pair)
    return found


def scores_between(
    writers: tuple[Float64[Tensor, "n d_model d_head"], Float64[Tensor, "n d_model d_head"]],
    readers: tuple[Float64[Tensor, "m d_model d_head"], Float64[Tensor, "m d_model d_head"]],
) -> Float64[Tensor, "n m"]:
    """||A B^T C D^T|| / (||A B^T|| ||C D^T||) of every writer (A, B) with every reader (C, D).

    Through products of d_head x d_head: ||L R^T||^2 = tr(L^T L R^T R).
    """
    (A, B), (C, D) = writers, readers
    middle = torch.einsum("ndi,mdj->nmij", B, C)
    outer, inner = A.mT @ A, D.mT @ D
    squared = torch.einsum("nij,nmik,mkl,nmjl->nm", outer, middle, inner, middle)
    writing = (outer * (B.mT @ B)).sum((1, 2))
    reading = ((C.mT @ C) * inner).sum((1, 2))
    return (squared / (writing[:, None] * reading)).clamp(min=0).sqrt()


def random_composition(d_model: int, d_head: int, n: int, generator: torch.Generator) -> RandomComposition:
    """Mean and standard deviation over n pairs of Gaussian heads: 1 / sqrt(d_model) up to a few percent."""
    if n < 2:
        raise ValueError(f"random_composition: n={n} pairs asked. At least 2 have a standard deviation.")
    scores = []
    for _ in range(n):
        A, B, C, D = torch.randn(4, 1, d_model, d_head, generator=generator, dtype=torch.float64)
        scores.append(scores_between((A, B), (C, D)))
    found = torch.cat(scores).flatten()
    return RandomComposition(float(found.mean()), float(found.std()))
