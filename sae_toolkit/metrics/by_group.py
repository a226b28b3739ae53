"""Reconstruction and sparsity group by group: kinds of tokens, places in a text, small and large activations."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import block_numbers, divide, sums_score
from sae_toolkit.metrics.labels import Labelling, labellings_for
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.sparse_rows import SparseRows

GROUPED_BY = ("token_class", "position")
MAX_GROUPS = 32
NORM_SAMPLES = 4096
N_NORM_GROUPS = 4
N_GROUP_BLOCKS = 32
"""Blocks that intervals resample; each holds one vector per group."""


class GroupSums:
    """Float64 sums over the samples of each group, block by block, from which any fixed centre can be taken off."""

    def __init__(self, n_groups: int, shift: Float64[Tensor, " d_in"]) -> None:
        self.shift = shift
        self.scalars = torch.zeros(N_GROUP_BLOCKS * n_groups, 4, dtype=torch.float64)  # count, error, ||y||^2, L0
        self.vectors = torch.zeros(N_GROUP_BLOCKS * n_groups, len(shift), dtype=torch.float64)
        self.n_groups = n_groups

    def update(
        self,
        x: Float64[Tensor, "batch d_in"],
        columns: Float64[Tensor, "batch 2"],
        blocks: Int[Tensor, " batch"],
        groups: Int[Tensor, " batch"],
    ) -> None:
        """Adds samples; `columns` are the squared error and L0."""
        y = x - self.shift
        cells = blocks % N_GROUP_BLOCKS * self.n_groups + groups
        error, l0 = columns.T
        self.scalars.index_add_(0, cells, torch.stack([torch.ones_like(error), error, y.square().sum(1), l0], 1))
        self.vectors.index_add_(0, cells, y)

    def centred(self, mean: Float64[Tensor, " d_in"]) -> Float64[np.ndarray, "n_groups n_blocks 4"]:
        """Count, error, sum ||y - mean||^2 and L0, mean as seen from `shift`."""
        count, error, squares, l0 = self.scalars.T
        shifted = count * mean.square().sum()
        spread = squares - 2 * self.vectors @ mean + shifted
        varies = spread > 1e-14 * (squares + shifted)  # below lies only the rounding of the float64 sums
        table = torch.stack([count, error, torch.where(varies, spread, 0.0), l0], 1)
        return table.reshape(N_GROUP_BLOCKS, self.n_groups, 4).transpose(0, 1).numpy()

    def mean(self) -> Float64[Tensor, " d_in"]:
        """Of all samples, as seen from `shift`."""
        return self.vectors.sum(0) / self.scalars[:, 0].sum().clamp_min(1)


class ByGroup(Metric):
    """Explained variance and L0 in each group of samples G.

    `explained_variance_G`: 1 - sum ||x - reconstruction||^2 / sum ||x - mean||^2 over the samples of G, the mean that
    of all samples: weighted with the groups' variances it adds up to `explained_variance`. `l0_G`: mean number of
    latents that are not 0. NaN for a group without samples.

    Groups: the classes of each labelling, exclusive and at most 32 (`..._token_class_digits`, `..._position_2_to_3`),
    and the quarters of the first 4,096 samples by norm (`..._norm_quarter_1` the smallest), with the mean of those.
    Intervals: documents or runs of samples, gathered in 32 blocks, resampled with the mean held fixed.
    """

    always_on: ClassVar[bool] = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        """By token class and position where tokens have texts; norms make groups anywhere."""
        return [cls([one for one in labellings_for(source) if one.name in GROUPED_BY])]

    def __init__(self, labellings: Sequence[Labelling]) -> None:
        for labelling in labellings:
            if not labelling.exclusive or len(labelling.classes) > MAX_GROUPS:
                raise ValueError(
                    f"ByGroup: labelling {labelling.name!r} given, with {len(labelling.classes)} classes "
                    f"({'exclusive' if labelling.exclusive else 'not exclusive'}). Give exclusive labellings of at "
                    f"most {MAX_GROUPS} classes."
                )
        self.labellings = tuple(labellings)
        self.n_samples = 0
        self.sums: dict[str, GroupSums] = {}
        self.first: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        x = batch.wanted().detach().cpu().double()
        if len(x) == 0:
            return
        error = (x - output.reconstruction.detach().cpu().double()).square().sum(1)
        columns = torch.stack([error, l0_of(output.sparse_latents())], 1)
        blocks = block_numbers(batch, self.n_samples).cpu()
        if not self.sums:
            shift = x[0].clone()  # close to a common offset, so that subtracting sums loses no digits
            self.sums = {one.name: GroupSums(len(one.classes), shift) for one in self.labellings}
        for labelling in self.labellings:
            self.sums[labelling.name].update(x, columns, blocks, labelling.of(batch).indices)
        wanted = max(0, NORM_SAMPLES - self.n_samples)
        if wanted:
            self.first.append((batch.activations[:wanted].detach().cpu(), columns[:wanted], blocks[:wanted]))
        self.n_samples += len(x)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        if not self.first:
            raise ValueError("ByGroup: no sample seen, so there is nothing to score. Call `update` first.")
        scores: dict[str, Score] = {}
        for labelling in self.labellings:
            scores |= group_scores(self.sums[labelling.name], [f"{labelling.name}_{one}" for one in labelling.classes])
        return scores | group_scores(self.by_norm(), [f"norm_quarter_{i + 1}" for i in range(N_NORM_GROUPS)])

    def by_norm(self) -> GroupSums:
        """The first samples, in quarters by their norm; equal norms are parted by order."""
        x, columns, blocks = (torch.cat(parts) for parts in zip(*self.first, strict=True))
        x = x.double()
        rank = torch.argsort(torch.argsort(x.norm(dim=1), stable=True))
        sums = GroupSums(N_NORM_GROUPS, x[0].clone())
        sums.update(x, columns, blocks, rank * N_NORM_GROUPS // len(x))
        return sums


def l0_of(latents: SparseRows) -> Float64[Tensor, " batch"]:
    """How many latents are not 0, sample by sample."""
    return torch.bincount(latents.rows[latents.values != 0], minlength=latents.n_rows).double()


def group_scores(sums: GroupSums, names: Sequence[str]) -> dict[str, Score]:
    """Both scores of every group."""
    scores = {}
    for name, table in zip(names, sums.centred(sums.mean()), strict=True):
        occupied = table[table[:, 0] > 0]
        n = int(table[:, 0].sum())
        for kind, statistic in (("explained_variance", explained), ("l0", mean_l0)):
            scores[f"{kind}_{name}"] = sums_score(occupied, statistic, n=n, id=f"{kind}_{name}/v1")
    return scores


def explained(sums: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, " n"]:
    """1 - error / spread; where nothing varies, 1 if nothing is lost, else NaN."""
    lossless = np.where((sums[:, 1] == 0) & (sums[:, 0] > 0), 1.0, np.nan)
    varies = sums[:, 2] > 0
    result: Float64[np.ndarray, " n"] = lossless
    np.divide(sums[:, 2] - sums[:, 1], sums[:, 2], out=result, where=varies)
    return result


def mean_l0(sums: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, " n"]:
    """L0 per sample."""
    return divide(sums[:, 3], sums[:, 0], otherwise=np.nan)
