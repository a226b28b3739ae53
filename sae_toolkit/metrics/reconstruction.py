"""How much of the activations comes back: explained variance and its relatives, one definition each."""

from math import floor, log2, sqrt

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import N_BLOCKS, BlockSums, block_numbers, divide, sums_score
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.score_units import ScoreUnits, block_units, ratio_units
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

NEGLIGIBLE_NORM = 1e-6
KEPT_SAMPLES = 4096
BINS_PER_OCTAVE = 8
N_NORM_BINS = 64 * BINS_PER_OCTAVE
"""Norms from 2**-24 to 2**40; what lies outside falls into the first or last bin."""
OUTLIER_BINS = floor(log2(10) * BINS_PER_OCTAVE)


def unexplained(sums: Float64[np.ndarray, "n columns"]) -> Float64[np.ndarray, " n"]:
    """FVU from the columns count, sum ||e||^2, sum ||y||^2, sum y (d columns), where y = x - any fixed vector.

    sum ||x - mean||^2 = sum ||y||^2 - ||sum y||^2 / count. Zero variance: 0 if nothing is lost, else NaN.
    """
    count, error, squares, vector = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3:]
    shifted = divide((vector**2).sum(1), count, otherwise=0.0)
    variance = squares - shifted
    varies = variance > 1e-14 * squares  # below lies only the rounding of the two float64 sums
    fvu = np.where((error == 0) & (count > 0), 0.0, np.nan)
    np.divide(error, variance, out=fvu, where=varies)
    return fvu


class Reconstruction(Metric):
    """Sums over all samples seen, e = x - reconstruction; x is what was to be reconstructed, a transcoder's target.

    `fvu`: sum ||e||^2 / sum ||x - mean(x)||^2, with the mean over all samples. `explained_variance`: 1 - fvu.
    `nmse`: sum ||e||^2 / sum ||x||^2. `shrinkage`: mean of ||reconstruction|| / ||x|| (samples of ||x|| > 1e-6).
    `relative_reconstruction_bias`: sum ||reconstruction||^2 / sum x . reconstruction over the same samples
    (Rajamanoharan et al. 2024, arXiv 2404.16014, section 4).
    `median_sample_explained_variance`: median over the first 4,096 samples of 1 - ||e||^2 / ||x - mean(x)||^2.
    `explained_variance_no_outliers`: over samples whose norm is at most ten times the median norm (norms rounded down
    to an eighth of an octave), with the mean of those samples.
    Intervals: bootstrap over documents or runs of samples, gathered in 256 blocks (the median's: order statistics).
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        del source
        return [cls()]

    def __init__(self) -> None:
        self.n_samples = 0
        self.sums = BlockSums("count", "error", "y_squared", "x_squared", "usable", "shrink", "power", "overlap")
        self.vectors = torch.zeros(0)
        self.norm_bins = torch.zeros(0)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        x = batch.wanted().detach().cpu().double()
        reconstruction = output.reconstruction.detach().cpu().double()
        if len(x) == 0:
            return
        if self.n_samples == 0:
            self.shift = x[0].clone()  # close to a common offset, so that subtracting sums loses no digits
            self.vectors = x.new_zeros(N_BLOCKS, x.shape[1])
            self.norm_bins = x.new_zeros(N_NORM_BINS, 3 + x.shape[1])
        y, error, x_squared = x - self.shift, (x - reconstruction).square().sum(1), x.square().sum(1)
        y_squared, power = y.square().sum(1), reconstruction.square().sum(1)
        usable = (x_squared > NEGLIGIBLE_NORM**2).double()
        blocks = block_numbers(batch, self.n_samples).cpu()
        self.sums.update(
            blocks,
            count=torch.ones_like(error),
            error=error,
            y_squared=y_squared,
            x_squared=x_squared,
            usable=usable,
            shrink=usable * (power / x_squared.clamp_min(NEGLIGIBLE_NORM**2)).sqrt(),
            power=usable * power,
            overlap=usable * (x * reconstruction).sum(1),
        )
        self.vectors.index_add_(0, blocks, y)
        bins = (BINS_PER_OCTAVE * (x_squared.log2() / 2 + 24)).floor().clamp(0, N_NORM_BINS - 1).long()
        self.norm_bins.index_add_(
            0, bins, torch.cat([torch.stack([torch.ones_like(error), error, y_squared], 1), y], 1)
        )
        wanted = max(0, KEPT_SAMPLES - self.n_samples)
        if wanted:
            self.kept.append((y[:wanted].clone(), error[:wanted].clone()))
        self.n_samples += len(x)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        if self.n_samples == 0:
            raise ValueError("Reconstruction: no sample seen, so there is nothing to score. Call `update` first.")
        columns, total = self.columns(), self.sums.ratio_score
        n, n_usable = self.n_samples, round(self.sums.total("usable"))
        bias = "relative_reconstruction_bias"
        return {
            "explained_variance": sums_score(columns, lambda s: 1 - unexplained(s), n=n, id="explained_variance/v1"),
            "fvu": sums_score(columns, unexplained, n=n, id="fvu/v1"),
            "nmse": total("error", "x_squared", n=n, id="nmse/v1"),
            "shrinkage": total("shrink", "usable", n=n_usable, id="shrinkage/v1"),
            bias: total("power", "overlap", n=n_usable, id=f"{bias}/v1"),
            "median_sample_explained_variance": self.median_score(),
            "explained_variance_no_outliers": self.score_without_outliers(),
        }

    def columns(self) -> Float64[np.ndarray, "n_blocks columns"]:
        """What `unexplained` takes, block by block."""
        return torch.cat([self.sums.sums[:, :3], self.vectors], dim=1)[self.sums.occupied].numpy()

    def units(self, sae: AbstractDictionary) -> dict[str, ScoreUnits]:
        del sae
        columns = self.columns()
        return {
            "explained_variance": block_units(columns, lambda s: 1 - unexplained(s), "explained_variance/v1"),
            "fvu": block_units(columns, unexplained, "fvu/v1"),
            "nmse": ratio_units(self.sums, "error", "x_squared", "nmse/v1"),
        }

    def median_score(self) -> Score:
        """Samples at the mean itself have no ratio and are left out."""
        mean = self.vectors.sum(0) / self.n_samples
        y, error = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        variance = (y - mean).square().sum(1)
        values = (1 - error / variance)[variance > 0]
        return median_with_interval(values, id="median_sample_explained_variance/v1")

    def score_without_outliers(self) -> Score:
        """Norm bins are enough: whole bins lie inside or outside the limit."""
        cumulative = self.norm_bins[:, 0].cumsum(0)
        median_bin = int((cumulative < self.n_samples / 2).sum())
        inside = self.norm_bins[: median_bin + OUTLIER_BINS + 1].sum(0, keepdim=True)
        return Score(
            value=float(1 - unexplained(inside.numpy())[0]),
            n=int(inside[0, 0]),
            id="explained_variance_no_outliers/v1",
        )


def median_with_interval(values: Float[Tensor, " n"], *, id: str) -> Score:
    """Median, with the order statistics that enclose it in 95 % of samples (binomial, normal approximation)."""
    n = len(values)
    if n == 0:
        return Score(value=float("nan"), n=0, id=id)
    ordered = values.sort().values
    middle, spread = (n - 1) / 2, 1.96 * sqrt(n) / 2
    low, high = floor(middle - spread), floor(middle + spread) + 1
    inside = low >= 0 and high < n
    return Score(
        value=float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2),
        low=float(ordered[low]) if inside else None,
        high=float(ordered[high]) if inside else None,
        n=n,
        id=id,
    )
