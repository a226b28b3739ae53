"""Latent by latent, how well a labelling explains when it fires: chosen on half of the samples, scored on the rest."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from sae_toolkit.metrics.bootstrap import divide, numpy_generator
from sae_toolkit.metrics.kept_latents import SparseMatrix, indicators
from sae_toolkit.metrics.label_information import (
    Choice,
    LabelCounts,
    PerLatent,
    binary_entropy,
    class_information,
    count_labels,
    entries_at,
    entropy,
    entropy_given_firing,
    label_information,
    lift,
    most_lifted_class,
    purest_class,
    purity,
)
from sae_toolkit.metrics.matching import ROUNDING

MIN_FIRES = 30
"""Kept samples a latent must fire in, half of them in each half, and samples a class must hold in to be counted."""
TOP_SHARE = 0.2
N_SHUFFLES = 20
COVERED = 0.5

Samples = Int[np.ndarray, " n_samples"]


class LabelTable(NamedTuple):
    """One row per latent that fires in at least 15 kept samples of each half; NaN where a question does not apply."""

    classes: Sequence[str]
    latents: Int[np.ndarray, " n_latents"]
    n_fires: Int[np.ndarray, " n_latents"]
    """In both halves."""
    pure_class: Choice
    """Number of the class of highest P(class | fires) in the first half."""
    purity: PerLatent
    """P(that class | fires) in the second half."""
    purity_top: PerLatent
    """The same, class chosen anew, at the strongest fifth of the latent's activations in each half."""
    purity_shuffled: PerLatent
    """`purity` after the labels of each half were shuffled."""
    lifted_class: Choice
    """Number of the class of highest lift in the first half."""
    lift: PerLatent
    base_rate: PerLatent
    """P(that class) in the second half."""
    selectivity: PerLatent
    label_entropy: PerLatent
    label_entropy_top: PerLatent
    label_entropy_shuffled: PerLatent
    mutual_information: PerLatent
    mutual_information_given_token: PerLatent
    covered: Float64[np.ndarray, " n_classes"]
    """1 where a latent's held-out lift for its own class is at least 0.5, NaN for classes of fewer than 30 samples."""


class LatentHalf(NamedTuple):
    """The latents that are judged, on the samples of one half: `[n_latents n_samples]`."""

    acts: SparseMatrix
    fires: SparseMatrix
    """1 where it fires."""
    top: SparseMatrix
    """1 at the strongest fifth of its activations."""


class SplitLatents(NamedTuple):
    """What every labelling is held against: computed once for all that are judged on the same halves."""

    latents: Int[np.ndarray, " n_latents"]
    halves: tuple[LatentHalf, LatentHalf]
    second: Bool[np.ndarray, " n_samples"]
    """Which samples are in the second half."""


class Half(NamedTuple):
    """The latents of one half, and the classes `[n_samples n_classes]` that hold in it."""

    latents: LatentHalf
    labels: SparseMatrix

    def counts(self) -> LabelCounts:
        return count_labels(self.latents.fires, self.labels)

    def top_counts(self) -> LabelCounts:
        return count_labels(self.latents.top, self.labels)

    def shuffled_counts(self, order: Samples) -> LabelCounts:
        return count_labels(self.latents.fires, self.labels[order])


def split_latents(acts: SparseMatrix, second: Bool[np.ndarray, " n_samples"]) -> SplitLatents:
    """Of activations `[n_samples d_sae]`, the latents that fire often enough in both halves."""
    enough = (acts[~second].getnnz(axis=0) >= MIN_FIRES // 2) & (acts[second].getnnz(axis=0) >= MIN_FIRES // 2)
    latents = np.flatnonzero(enough)
    halves = []
    for rows in (~second, second):
        by_latent = acts[rows][:, latents].T.tocsr()
        halves.append(LatentHalf(by_latent, indicators(by_latent), strongest(by_latent, TOP_SHARE)))
    return SplitLatents(latents, (halves[0], halves[1]), second)


def label_table(
    split: SplitLatents,
    labels: SparseMatrix,
    *,
    classes: Sequence[str],
    exclusive: bool,
    tokens: Samples | None = None,
) -> LabelTable:
    """`labels` `[n_samples n_classes]`; `tokens`: for what a context says beyond them."""
    latents, labels = split.latents, indicators(labels)
    halves = [Half(split.halves[i], labels[rows]) for i, rows in enumerate((~split.second, split.second))]
    first, held_out = (half.counts() for half in halves)
    first_top, held_out_top = (half.top_counts() for half in halves)
    rng = numpy_generator(0, "label shuffles")
    first_random, held_out_random = (half.shuffled_counts(rng.permutation(half.labels.shape[0])) for half in halves)
    pure, lifted = purest_class(first), most_lifted_class(first)
    unknown = np.full(len(latents), np.nan)

    def information(counts: LabelCounts) -> PerLatent:
        return label_information(counts) if exclusive else class_information(counts, lifted)

    beyond_chance = corrected(halves[1], information, lambda: rng.permutation(halves[1].labels.shape[0]))
    beyond_token = unknown
    if tokens is not None:
        inside = tokens[split.second]
        beyond_token = corrected(halves[1], information, lambda: order_within(inside, rng))
    lifts = lift(held_out, lifted)
    return LabelTable(
        classes=classes,
        latents=latents,
        n_fires=(first.fires + held_out.fires).astype(np.int64),
        pure_class=pure,
        purity=purity(held_out, pure),
        purity_top=purity(held_out_top, purest_class(first_top)),
        purity_shuffled=purity(held_out_random, purest_class(first_random)),
        lifted_class=lifted,
        lift=lifts,
        base_rate=held_out.labels[lifted] / max(held_out.n, 1),
        selectivity=selectivity(halves[1], lifted),
        label_entropy=gained(held_out) if exclusive else unknown,
        label_entropy_top=gained(held_out_top) if exclusive else unknown,
        label_entropy_shuffled=gained(held_out_random) if exclusive else unknown,
        mutual_information=beyond_chance,
        mutual_information_given_token=beyond_token,
        covered=covered_classes(first.labels + held_out.labels, lifted, lifts),
    )


def strongest(acts: SparseMatrix, share: float) -> SparseMatrix:
    """Indicators of each row's largest entries, `share` of them, rounded up; the earlier one of equals."""
    from scipy import sparse  # noqa: PLC0415  (slow import)

    counts = np.diff(acts.indptr)
    rows = np.repeat(np.arange(acts.shape[0]), counts)
    order = np.lexsort((-acts.data, rows))
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows)) - acts.indptr[rows]
    kept = rank < np.ceil(share * counts)[rows]
    ones = np.ones(int(kept.sum()), dtype=np.int32)
    return sparse.csr_matrix((ones, (rows[kept], acts.indices[kept])), shape=acts.shape)


def gained(counts: LabelCounts) -> PerLatent:
    """1 - H(y | fires) / H(y): 1 where all fires share one class; NaN where the class never varies."""
    nats = entropy(counts.labels)
    return 1 - entropy_given_firing(counts) / nats if nats > 0 else np.full(len(counts.fires), np.nan)


def corrected(half: Half, information: Callable[[LabelCounts], PerLatent], shuffle: Callable[[], Samples]) -> PerLatent:
    """(I - mean of I over shuffled labels) / H(fire); 0 for a latent that always fires and so tells nothing."""
    chance = np.zeros(half.latents.fires.shape[0])
    for _ in range(N_SHUFFLES):
        chance += information(half.shuffled_counts(shuffle())) / N_SHUFFLES
    counts = half.counts()
    return divide(information(counts) - chance, binary_entropy(counts.fires, counts.n), otherwise=0.0)


def order_within(groups: Samples, rng: np.random.Generator) -> Samples:
    """A random order in which every sample's place is taken by one of its own group."""
    order = np.empty(len(groups), dtype=np.int64)
    order[np.argsort(groups, kind="stable")] = np.lexsort((rng.random(len(groups)), groups))
    return order


def selectivity(half: Half, choice: Choice) -> PerLatent:
    """(m1 - m0) / (m1 + m0): mean activation (silent samples are 0) where the class holds, and where it does not.

    NaN where one of the two never happens.
    """
    acts, labels = half.latents.acts.astype(np.float64), half.labels.astype(np.float64)
    total = np.asarray(acts.sum(axis=1)).reshape(-1)
    inside = entries_at((acts @ labels).tocsr(), choice)
    held = np.asarray(labels.sum(axis=0)).reshape(-1)[choice]
    with_it = divide(inside, held, otherwise=np.nan)
    without = divide(np.maximum(total - inside, 0), half.labels.shape[0] - held, otherwise=np.nan)
    return divide(with_it - without, with_it + without, otherwise=np.nan)


def covered_classes(
    held: Float64[np.ndarray, " n_classes"], lifted: Choice, lifts: PerLatent
) -> Float64[np.ndarray, " n_classes"]:
    """Which classes some latent stands for."""
    covered = np.where(held >= MIN_FIRES, 0.0, np.nan)
    found = lifted[lifts >= COVERED - ROUNDING]
    covered[found[held[found] >= MIN_FIRES]] = 1.0
    return covered
