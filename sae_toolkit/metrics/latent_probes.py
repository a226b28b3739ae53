"""Probes that may read few latents: greedily selected and fitted by ridge regression."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from sae_toolkit.metrics.bootstrap import divide
from sae_toolkit.metrics.kept_latents import SparseMatrix
from sae_toolkit.metrics.probe import Ridge

N_LATENTS = (1, 2, 5)
"""How many latents a probe may read."""


class SelectedProbe(NamedTuple):
    """What probes of `N_LATENTS` latents say on every sample, and which latents they read."""

    scores: dict[int, Float64[Tensor, "n_samples n_concepts"]]
    """By number of latents."""
    latents: Int[np.ndarray, "n_concepts most"]
    """In order of selection."""


def selected_probes(
    acts: SparseMatrix, targets: Float64[Tensor, "n_samples n_concepts"], train: Bool[np.ndarray, " n_samples"]
) -> SelectedProbe:
    """Fitted on the samples where `train` holds, applied to all.

    The next latent is the one of largest absolute correlation with what the ridge regression on the earlier ones leaves
    (so a duplicate of a chosen latent is never the next). No latent gains by its scale.
    """
    by_latent = acts.tocsc().astype(np.float64)
    inside = acts[train].astype(np.float64)
    means = np.asarray(inside.mean(axis=0)).reshape(-1)
    squares = np.asarray(inside.multiply(inside).mean(axis=0)).reshape(-1)
    varies = squares - means**2 > 1e-12 * squares  # below lies only rounding: a latent that is always the same
    deviations = np.sqrt(np.where(varies, squares - means**2, 0.0))
    inverse = divide(np.ones_like(deviations), deviations, otherwise=0.0)
    n_concepts = targets.shape[1]
    chosen = np.zeros((n_concepts, 0), dtype=np.int64)
    chosen_columns: list[Float64[Tensor, "n_samples _"]] = [targets.new_zeros(len(targets), 0)] * n_concepts
    inside_targets = targets[torch.from_numpy(train)]
    residual = inside_targets - inside_targets.mean(0)
    scores = {}
    for k in range(1, max(N_LATENTS) + 1):
        strength = np.abs(inside.T @ residual.numpy()) * inverse[:, None]
        np.put_along_axis(strength, chosen.T, -1.0, axis=0)
        picked = strength.argmax(axis=0)
        chosen = np.column_stack([chosen, picked])
        predicted = torch.empty_like(targets)
        for concept, latent in enumerate(picked.tolist()):
            column = torch.from_numpy(by_latent[:, [latent]].toarray()) * inverse[latent]
            chosen_columns[concept] = x = torch.cat([chosen_columns[concept], column], dim=1)
            fit = Ridge(x[torch.from_numpy(train)]).fit(inside_targets[:, [concept]])
            predicted[:, concept] = fit(x)[:, 0]
        residual = inside_targets - predicted[torch.from_numpy(train)]
        if k in N_LATENTS:
            scores[k] = predicted
    return SelectedProbe(scores, chosen)


def token_predictor(
    tokens: Int[np.ndarray, " n_samples"],
    targets: Float64[Tensor, "n_samples n_concepts"],
    train: Bool[np.ndarray, " n_samples"],
) -> Float64[Tensor, "n_samples n_concepts"]:
    """P(concept | token) from the counts of the train samples, with one more sample of the overall rate per token."""
    numbers = torch.from_numpy(np.unique(tokens, return_inverse=True)[1].reshape(-1))
    inside = torch.from_numpy(train)
    rate = targets[inside].mean(0)
    seen = torch.ones(int(numbers.max()) + 1, dtype=torch.float64)
    held = rate.expand(len(seen), -1).clone()
    seen.index_add_(0, numbers[inside], torch.ones(int(inside.sum()), dtype=torch.float64))
    held.index_add_(0, numbers[inside], targets[inside])
    return (held / seen[:, None])[numbers]


def auroc_within(
    groups: Int[np.ndarray, " n"], scores: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> float:
    """P(score of a positive > score of a negative of the same group), ties counting half; NaN where no pair exists."""
    order = np.lexsort((scores, groups))
    groups, scores, positive = groups[order], scores[order], positive[order]
    new_group = np.append(True, groups[1:] != groups[:-1])
    new_level = new_group | np.append(True, scores[1:] != scores[:-1])
    level, group = np.cumsum(new_level) - 1, np.cumsum(new_group) - 1
    positives = np.bincount(level, weights=positive)
    negatives = np.bincount(level, weights=~positive)
    group_of_level = group[np.flatnonzero(new_level)]
    of_group = np.bincount(group_of_level, weights=negatives)
    before_group = np.cumsum(of_group) - of_group
    below = np.cumsum(negatives) - negatives - before_group[group_of_level]
    n_pairs = (positives * of_group[group_of_level]).sum()
    return float((positives * (below + negatives / 2)).sum() / n_pairs) if n_pairs else float("nan")
