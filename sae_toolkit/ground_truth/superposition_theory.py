"""Which solution a toy model should prefer: losses and phase boundaries (Elhage et al. 2022, arXiv 2209.10652).

"Toy Models of Superposition", section "Superposition as a Phase Change"; the losses are derived in the docstrings.
All but one feature have importance 1, the extra one r, and m = n - 1 dimensions leave one too few (n = 2 or 3). Closed
forms assume unit norms and no bias for represented features; what is ignored is predicted by its mean.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from sae_toolkit.ground_truth.toy_data import ToyData
from sae_toolkit.ground_truth.toy_model import ToyModels
from sae_toolkit.ground_truth.toy_training import ToyTrainConfig, best_of, train_exactly

PHASES = ("ignored", "dedicated", "superposed")
"""What happens to the extra feature: not represented, a dimension of its own, or one shared with another feature."""


class PhasePrediction(NamedTuple):
    """The phase with the lowest loss, cell by cell."""

    phase: Int64[Tensor, " cells"]
    """Index into PHASES."""
    loss: Float64[Tensor, " cells"]
    """Of that phase."""
    margin: Float64[Tensor, " cells"]
    """Loss of the second best phase / loss of the best - 1: near 0 at a boundary."""


def feature_variance(p: Float[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """V(p) = p/3 - p^2/4, the variance of a feature: the loss of predicting it by its mean."""
    p = p.double()
    return p / 3 - p.square() / 4


def linear_model_loss(
    importance: Float[Tensor, " n_features"], p: Float[Tensor, " cells"], n_hidden: int
) -> Float64[Tensor, " cells"]:
    """Optimum of the linear model: the n_hidden most important features are kept, sum of I_i V(p) over the others."""
    ignored = importance.double().sort(descending=True).values[n_hidden:].sum()
    return ignored * feature_variance(p)


def candidate_losses(
    p: Float[Tensor, " cells"], r: Float[Tensor, " cells"], *, n_features: Literal[2, 3] = 2
) -> dict[str, Float64[Tensor, " cells"]]:
    """Loss of each ideal solution.

    extra_ignored: r V. other_ignored: V, the extra feature has a dimension of its own. extra_antipodal: it shares one
    with another feature, p^2 (1 + r) / 6, because both err by min(x_1, x_2) where both fire, and E min^2 = 1/6.
    others_antipodal (n = 3): the two others share one, p^2 / 3.
    """
    check_n_features(n_features)
    variance, r, p = feature_variance(p), r.double(), p.double()
    losses = {
        "extra_ignored": r * variance,
        "other_ignored": variance,
        "extra_antipodal": p.square() * (1 + r) / 6,
    }
    return losses if n_features == 2 else losses | {"others_antipodal": p.square() / 3}


def predict_phases(
    p: Float[Tensor, " cells"], r: Float[Tensor, " cells"], *, n_features: Literal[2, 3] = 2
) -> PhasePrediction:
    """The phase of the extra feature by `candidate_losses`.

    A dimension of its own is one phase, whether another feature is ignored or the others share: at p = 1 the two are
    rotations of one another.
    """
    losses = candidate_losses(p, r, n_features=n_features)
    dedicated = losses["other_ignored"]
    if n_features == 3:
        dedicated = torch.minimum(dedicated, losses["others_antipodal"])
    ordered, order = torch.stack([losses["extra_ignored"], dedicated, losses["extra_antipodal"]]).sort(
        dim=0, stable=True
    )
    return PhasePrediction(order[0], ordered[0], ordered[1] / ordered[0] - 1)


def trained_phases(W: Float[Tensor, "cells n_hidden n_features"]) -> Int64[Tensor, " cells"]:
    """The phase of the extra (last) feature of trained models: index into PHASES.

    Represented: ||W_e|| > 0.5. Superposed: sum over j != e of (hat W_e . W_j)^2 > 0.25.
    """
    extra = W.detach()[:, :, -1:]
    norms = extra.norm(dim=1)
    overlaps = (extra.mT @ W.detach()[:, :, :-1])[:, 0] / norms.clamp_min(1e-12)
    superposed = overlaps.square().sum(dim=1) > 0.25
    return torch.where(norms[:, 0] > 0.5, torch.where(superposed, 2, 1), 0)


def closed_form_boundary(r: Float[Tensor, " cells"], *, n_features: Literal[2, 3] = 2) -> Float64[Tensor, " cells"]:
    """The p below which the extra feature is superposed: 4r / (2 + 5r) for r <= 1; above 4 / (5 + 2r), or 0 if n = 3.

    A lower bound on the true boundary, because bias and norms that adapt help the antipodal solution only.
    """
    check_n_features(n_features)
    r = r.double()
    above = 4 / (5 + 2 * r) if n_features == 2 else torch.zeros_like(r)
    return torch.where(r <= 1, 4 * r / (2 + 5 * r), above)


def refined_antipodal_losses(
    p: Float[Tensor, " cells"], r: Float[Tensor, " cells"], *, n_steps: int = 600
) -> Float64[Tensor, " cells"]:
    """Loss of the antipodal solution of n = 2, m = 1 after W and b adapt, by exact minimisation from W = (1, -1)."""
    n_cells = len(p)
    start = ToyModels.of_weights(
        "relu_output", torch.tensor([[[1.0, -1.0]]]).repeat(n_cells, 1, 1), torch.zeros(n_cells, 2)
    )
    data = ToyData(probabilities=p.float()[:, None].repeat(1, 2))
    importance = torch.stack([torch.ones(n_cells), r.float()], dim=1)
    train = ToyTrainConfig(n_steps=n_steps, learning_rate=1e-2)
    return train_exactly(start.config, data, importance, train=train, n_nodes=12, start=start).losses


def best_pair(p: Sequence[float], *, n_inits: int = 8) -> ToyModels:
    """The best models of two equal features in one dimension, one for each p: the exact digon, where that is best.

    Coarse quadrature finds the minimum; its kinks bias the norm by 0.3 %, so that a fine one (0.02 %) finishes.
    """
    config, data = ToyModels.Config(n_features=2, n_hidden=1, n_instances=n_inits * len(p)), ToyData.uniform(p, 2)
    coarse = ToyTrainConfig(n_steps=1000, learning_rate=1e-2)
    found = best_of(train_exactly(config, data, torch.ones(2), train=coarse), n_inits).models
    fine = ToyTrainConfig(n_steps=300, learning_rate=2e-3)
    return train_exactly(found.config, data, torch.ones(2), train=fine, n_nodes=64, start=found).models


def refined_boundary(r: Sequence[float], *, n_points: int = 24) -> Float64[Tensor, " values"]:
    """The p at which the refined antipodal loss meets that of keeping only the more important feature (n = 2, m = 1).

    A grid of n_points over p, then one inside the interval that holds the crossing. NaN where the antipodal solution
    still wins at p = 0.7: near r = 1 it fades continuously, and no sharp boundary exists.
    """
    values = torch.tensor(list(r), dtype=torch.float64)
    low, high = torch.full_like(values, 0.02), torch.full_like(values, 0.7)
    for _ in range(2):
        p = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, n_points, dtype=torch.float64)
        wins = antipodal_wins(p.flatten(), values.repeat_interleave(n_points)).reshape(p.shape)
        n_wins = wins.long().cumprod(dim=1).sum(dim=1)
        low = p.gather(1, (n_wins[:, None] - 1).clamp(min=0))[:, 0]
        high = p.gather(1, n_wins[:, None].clamp(max=n_points - 1))[:, 0]
    return torch.where(low < high, (low + high) / 2, torch.nan)


def antipodal_wins(p: Float64[Tensor, " cells"], r: Float64[Tensor, " cells"]) -> Bool[Tensor, " cells"]:
    """Whether the refined antipodal loss is the lower one by more than the error of the quadrature.

    Above the boundary the minimisation may end at the single-feature solution itself, and then the losses are equal.
    """
    single = torch.minimum(r, torch.ones_like(r)) * feature_variance(p)
    return refined_antipodal_losses(p, r) < single * (1 - 1e-3)


def check_n_features(n_features: int) -> None:
    """Closed forms exist for two sizes only."""
    if n_features not in (2, 3):
        raise ValueError(f"superposition theory: n_features={n_features} asked, but closed forms exist for 2 and 3.")
