"""Whether a head copies what it attends to: the eigenvalues of its token circuit (Elhage et al. 2021)."""

import torch
from jaxtyping import Float64
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.analysis.factored import Factored
from sae_toolkit.analysis.head_circuits import token_ov


def positivity(circuit: Factored) -> float:
    """sum_k Re lambda_k / sum_k |lambda_k|: 1 where all eigenvalues are positive, -1 negative; NaN where all are 0."""
    eigenvalues = circuit.eigenvalues()
    total = float(eigenvalues.abs().sum())
    return float(eigenvalues.real.sum()) / total if total > 0 else float("nan")


def copying_score(weights: CircuitWeights, layer: int, head: int) -> float:
    """`positivity` of W_E W_V W_O W_U, from d_head eigenvalues: whether tokens raise their own logits."""
    return positivity(token_ov(weights, layer, (head,)))


def copying_scores(weights: CircuitWeights) -> Float64[Tensor, "n_layers n_heads"]:
    """Of every head. A random head scores 0 on average; `random_copying_scores` says how widely it scatters."""
    found = [
        [copying_score(weights, layer, head) for head in range(weights.n_heads)] for layer in range(weights.n_layers)
    ]
    return torch.tensor(found, dtype=torch.float64).reshape(weights.n_layers, weights.n_heads)


def random_copying_scores(d_model: int, d_head: int, n: int, generator: torch.Generator) -> Float64[Tensor, " n"]:
    """Of Gaussian heads of the same size, in a residual stream whose own basis is that of the tokens."""
    shape = (n, d_model, d_head)
    left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return torch.tensor([positivity(Factored(a, b.T)) for a, b in zip(left, right, strict=True)], dtype=torch.float64)
