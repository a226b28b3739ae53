"""How often each feature fires: firing probabilities `[n_features]`, most frequent feature first."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def uniform_probabilities(n_features: int, *, expected_l0: float) -> Float[Tensor, " n_features"]:
    """Every feature equally often, expected_l0 features per sample on average."""
    return zipf_probabilities(n_features, exponent=0.0, expected_l0=expected_l0)


def zipf_probabilities(
    n_features: int, *, exponent: float, expected_l0: float, maximum: float = 1.0
) -> Float[Tensor, " n_features"]:
    """min(maximum, c rank^-exponent), with c such that the sum is expected_l0 *after* the clamp."""
    if n_features < 1:
        raise ValueError(f"zipf_probabilities: n_features={n_features} given, but at least 1 is needed.")
    if not 0 < maximum <= 1:
        raise ValueError(f"zipf_probabilities: maximum={maximum} given, but a probability lies in (0, 1].")
    if not 0 < expected_l0 <= n_features * maximum:
        raise ValueError(
            f"zipf_probabilities: expected_l0={expected_l0} asked of {n_features} features that fire at most with "
            f"probability {maximum}. Choose 0 < expected_l0 <= {n_features * maximum:g}."
        )
    weights = torch.arange(1, n_features + 1, dtype=torch.float64).pow(-exponent)
    # the k largest weights are clamped: try k = 0, 1, ... until the rest needs no clamp
    clamped = torch.zeros(n_features, dtype=torch.bool)
    while True:
        rest = max(expected_l0 - maximum * int(clamped.sum()), 0.0)
        scale = rest / weights[~clamped].sum().clamp(min=1e-300)
        probabilities = torch.where(clamped, maximum, weights * scale)
        too_large = probabilities > maximum
        if not too_large.any():
            return probabilities.clamp(max=maximum).float()
        clamped |= too_large


def given_probabilities(values: Sequence[float]) -> Float[Tensor, " n_features"]:
    """Exactly these, checked."""
    probabilities = torch.tensor(list(values), dtype=torch.float32)
    check_probabilities(probabilities, "given_probabilities")
    return probabilities


def synth_sae_bench_probabilities(
    n_features: int, *, exponent: float = 0.5, minimum: float = 5e-4, maximum: float = 0.4
) -> Float[Tensor, " n_features"]:
    """rank^-exponent mapped affinely so that the first is `maximum`, the last `minimum` (SynthSAEBench, 2602.14687)."""
    if n_features < 2 or not 0 <= minimum < maximum <= 1 or exponent <= 0:
        raise ValueError(
            f"synth_sae_bench_probabilities: n_features={n_features}, minimum={minimum}, maximum={maximum}, "
            f"exponent={exponent} given, but it needs n_features >= 2, 0 <= minimum < maximum <= 1 and exponent > 0."
        )
    powers = torch.arange(1, n_features + 1, dtype=torch.float64).pow(-exponent)
    share = (powers - powers[-1]) / (powers[0] - powers[-1])
    return (minimum + share * (maximum - minimum)).float()


def check_probabilities(probabilities: Float[Tensor, " n_features"], what: str) -> None:
    """A ValueError that names the first entry which is no probability."""
    if len(probabilities) == 0:
        raise ValueError(f"{what}: no probabilities given. Give one per feature.")
    wrong = ~((probabilities >= 0) & (probabilities <= 1))  # also true for NaN
    if wrong.any():
        first = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"{what}: probability {probabilities[first].item()} given for feature {first} ({int(wrong.sum())} of "
            f"{len(probabilities)} entries are wrong). Each must lie in [0, 1]."
        )
