"""F1, AUROC and base rate of one probe on test samples, their intervals resampled over documents."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64, Int

from sae_toolkit.metrics.bootstrap import (
    MIN_UNITS,
    N_RESAMPLES,
    divide,
    numpy_generator,
    percentile_interval,
    ratio,
    sums_score,
)
from sae_toolkit.metrics.score import Score

RESAMPLES_AT_ONCE = 50
N_CHUNKS = N_RESAMPLES // RESAMPLES_AT_ONCE

Labels = Bool[np.ndarray, " n"]
Groups = Int[np.ndarray, " n"]


def f1_score(predicted: Labels, labels: Labels, groups: Groups) -> Score:
    """2 TP / (2 TP + FP + FN) over all samples; n: samples; floor: that of saying yes always."""
    kinds = np.stack([predicted & labels, predicted & ~labels, ~predicted & labels], axis=1).astype(np.float64)
    rate = float(labels.mean())
    found = sums_score(sums_by_group(kinds, groups), f1_of_sums, n=len(labels), id="concept_probe_f1/v1")
    return replace(found, floor=2 * rate / (1 + rate))


def f1_of_sums(sums: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """From true positives, false positives and false negatives."""
    hits, false, missed = sums.T
    return divide(2 * hits, 2 * hits + false + missed, otherwise=np.nan)


def rate_score(labels: Labels, groups: Groups) -> Score:
    """Share of samples for which the concept holds."""
    columns = np.stack([labels, np.ones_like(labels)], axis=1).astype(np.float64)
    return sums_score(sums_by_group(columns, groups), ratio, n=len(labels), id="concept_base_rate/v1")


def auroc_score(scores: Float64[np.ndarray, " n"], labels: Labels, groups: Groups) -> Score:
    """P(a positive scores above a negative) over all pairs, ties counting half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    distinct, place = np.unique(groups, return_inverse=True)
    place, positive = place.reshape(-1)[order], labels[order]

    def auroc(weights: Float64[np.ndarray, "n_resamples n_groups"]) -> Float64[np.ndarray, " n_resamples"]:
        weight = weights[:, place]
        positives = np.add.reduceat(weight * positive, starts, axis=1)
        negatives = np.add.reduceat(weight * ~positive, starts, axis=1)
        below = negatives.cumsum(axis=1) - negatives
        won = (positives * (below + negatives / 2)).sum(axis=1)
        return divide(won, positives.sum(axis=1) * negatives.sum(axis=1), otherwise=np.nan)

    low, high = None, None
    if len(distinct) >= MIN_UNITS:
        rng = numpy_generator(0, "bootstrap")
        shares = np.full(len(distinct), 1 / len(distinct))
        drawn = [
            auroc(
                rng.multinomial(len(distinct), shares, size=min(RESAMPLES_AT_ONCE, N_RESAMPLES - start)).astype(float)
            )
            for start in range(0, N_RESAMPLES, RESAMPLES_AT_ONCE)
        ]
        low, high = percentile_interval(np.concatenate(drawn))
    value = float(auroc(np.ones((1, len(distinct))))[0])
    return Score(value=value, low=low, high=high, floor=0.5, n=len(labels), id="concept_probe_auroc/v1")


def sums_by_group(columns: Float64[np.ndarray, "n k"], groups: Groups) -> Float64[np.ndarray, "n_groups k"]:
    """Sums of the samples of each document."""
    distinct, place = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(distinct), columns.shape[1]))
    np.add.at(sums, place.reshape(-1), columns)
    return sums
