"""What a supervised linear readout of the activations knows: the ceiling of any linear encoder, not of an SAE."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationSource, Split
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column, coefficients_of, columns_of, first_rows
from sae_toolkit.metrics.detection import Levels
from sae_toolkit.metrics.score import Score

RIDGE = 1e-4
"""Relative to the mean variance per dimension."""
SMALLEST_VARIANCE = 1e-12
"""Taken for inputs that never vary."""
FEATURES_AT_ONCE = 64


class Ridge:
    """Ridge regressions on the same inputs: one factorisation serves any number of targets."""

    def __init__(self, x: Float64[Tensor, "n_samples d"]) -> None:
        self.mean = x.mean(0)
        self.centred = x - self.mean
        covariance = self.centred.T @ self.centred
        strength = RIDGE * covariance.diagonal().mean().clamp_min(SMALLEST_VARIANCE)
        self.factor = torch.linalg.cholesky(covariance + strength * torch.eye(len(covariance), dtype=torch.float64))

    def fit(
        self, targets: Float64[Tensor, "n_samples n_targets"]
    ) -> Callable[[Float64[Tensor, "n d"]], Float64[Tensor, "n n_targets"]]:
        """What predicts the targets from new inputs; the mean is not shrunk."""
        offset, weights = targets.mean(0), self.weights(targets)
        return lambda x: (x - self.mean) @ weights + offset

    def weights(self, targets: Float64[Tensor, "n_samples n_targets"]) -> Float64[Tensor, "d n_targets"]:
        """One readout per target, of inputs less their mean; what it gives is the difference from the target's mean."""
        solution: Tensor = torch.cholesky_solve(self.centred.T @ (targets - targets.mean(0)), self.factor)
        return solution


class LabelledSample(NamedTuple):
    """Activations and, for each feature, the samples on which it fires."""

    activations: Float64[Tensor, "n_samples d_in"]
    features: list[Column]


def linear_probe(
    source: ActivationSource, *, n_train: int = 20_000, n_eval: int = 20_000, seed: int = 0, batch_size: int = 1024
) -> dict[str, Score]:
    """One ridge regression per feature of "coefficient != 0" on the activation, fitted and tuned on the train split.

    `probe_f1`: F1 on the eval split at the threshold of highest F1 on the train split. `probe_auroc`: on the eval one.
    Means over the features that fire in the eval samples (AUROC: and are off in some).
    """
    found = probe_features(source, n_train=n_train, n_eval=n_eval, seed=seed, batch_size=batch_size)
    return {
        "probe_f1": mean_score(found.f1, id="probe_f1/v1"),
        "probe_auroc": mean_score(found.auroc, id="probe_auroc/v1"),
    }


class ProbedFeatures(NamedTuple):
    """What the probe of each feature reaches, NaN where the eval samples cannot tell, and where it finds it."""

    f1: Float64[Tensor, " n_features"]
    auroc: Float64[Tensor, " n_features"]
    directions: Float64[Tensor, "n_features d_in"]
    """Mean activation with the feature less mean without it: the pattern of a linear readout (Haufe et al. 2014,
    equation 7), which is what a decoder writes; its weights are what an encoder reads. NaN where it never fires."""


def probe_features(
    source: ActivationSource, *, n_train: int = 20_000, n_eval: int = 20_000, seed: int = 0, batch_size: int = 1024
) -> ProbedFeatures:
    """`linear_probe` feature by feature."""
    train = labelled_sample(source, n_train, seed=seed, split="train", batch_size=batch_size)
    held_out = labelled_sample(source, n_eval, seed=seed, split="eval", batch_size=batch_size)
    ridge = Ridge(train.activations)
    f1, auroc = (torch.full((len(train.features),), torch.nan, dtype=torch.float64) for _ in range(2))
    directions = torch.full((len(train.features), train.activations.shape[1]), torch.nan, dtype=torch.float64)
    for chunk in torch.split(torch.arange(len(train.features)), FEATURES_AT_ONCE):
        labels = indicators(train, chunk)
        predict, share = ridge.fit(labels), labels.mean(0)[:, None]
        directions[chunk] = labels.T @ ridge.centred / (len(labels) * share * (1 - share))
        fitted, scores = predict(train.activations), predict(held_out.activations)
        for i, feature in enumerate(chunk.tolist()):
            threshold = dense_levels(fitted[:, i], train.features[feature]).best_threshold()
            levels = dense_levels(scores[:, i], held_out.features[feature])
            f1[feature], auroc[feature] = levels.f1_over(threshold), levels.auroc()
    return ProbedFeatures(f1, auroc, directions)


def labelled_sample(
    source: ActivationSource, n_samples: int, *, seed: int, split: Split, batch_size: int
) -> LabelledSample:
    """The first n_samples of a split, or as many as it has."""
    activations: list[Tensor] = []
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    n_seen = n_features = 0
    for batch in source.stream(batch_size, seed=seed, split=split):
        n = min(len(batch.activations), n_samples - n_seen)
        head = first_rows(coefficients_of(batch), n)
        activations.append(batch.activations[:n].cpu().double())
        kept.append(((head.rows + n_seen).cpu(), head.indices.cpu(), head.values.cpu()))
        n_seen, n_features = n_seen + n, head.n_columns
        if n_seen >= n_samples:
            break
    if n_seen == 0:
        raise ValueError(f"linear_probe: the {split} split gave no sample. Check the source, and n_train and n_eval.")
    return LabelledSample(torch.cat(activations), columns_of(kept, n_features))


def indicators(sample: LabelledSample, features: Int[Tensor, " chunk"]) -> Float64[Tensor, "n_samples chunk"]:
    """1 where the feature fires."""
    labels = torch.zeros(len(sample.activations), len(features), dtype=torch.float64)
    for i, feature in enumerate(features.tolist()):
        labels[torch.from_numpy(sample.features[feature].samples).long(), i] = 1.0
    return labels


def dense_levels(scores: Float64[Tensor, " n_samples"], feature: Column) -> Levels:
    """Levels of scores that are hardly ever 0."""
    values = scores.numpy()
    return Levels(Column(np.arange(len(values)), values), feature, len(values))
