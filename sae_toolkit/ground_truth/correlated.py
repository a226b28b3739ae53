"""Features that fire together: a Gaussian copula, in which feature i fires iff its normal g_i exceeds a quantile."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.ground_truth.firing import Fired, Firing, FiringDraw, KnownDraw, fired_of_keys, rare_positions

CELLS_PER_BLOCK = 2**19
"""Cells of one dense block of thresholds, 2 MB of float32 (fastest of 2**17 to 2**21).

A world gives other samples for the same seed when this changes.
"""


@dataclass(frozen=True, kw_only=True)
class LowRankFiring(Firing):
    """g = F z + sqrt(1 - sum F^2) eps with a few shared normals z; feature i fires iff g_i > quantile(1 - p_i).

    The construction of SynthSAEBench (arXiv 2602.14687). Given z the features are independent, so that each is decided
    only where it is asked for, and only `[n_samples block]` exists. A row of length 1 has no eps: two features with
    equal rows of length 1 and equal rates share one coin.
    """

    factors: Float[Tensor, "n_features rank"]
    """F, the loading of each feature on the shared normals; rows not longer than 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.factors) != self.n_features or not self.factors.isfinite().all():
            raise ValueError(
                f"LowRankFiring: factors of shape {tuple(self.factors.shape)} given for {self.n_features} features. "
                "Give one row of finite loadings per feature."
            )
        longest = float(self.factors.double().square().sum(dim=1).max())
        if longest > 1 + 1e-6:
            raise ValueError(
                f"LowRankFiring: a row of the factors has squared length {longest:g}, but g has variance 1 only up to "
                "1. Scale the factors down."
            )

    @cached_property
    def own_std(self) -> Float[Tensor, " n_features"]:
        """Standard deviation of the part of g that a feature shares with no other (kept off 0)."""
        left = 1 - self.factors.double().square().sum(dim=1)
        return left.clamp(min=1e-12).sqrt()

    @cached_property
    def scaled(self) -> tuple[Float[Tensor, " n_features"], Float[Tensor, "n_features rank"]]:
        """Threshold of eps at z = 0, and how z lowers it."""
        quantiles = firing_quantiles(self.probabilities)
        return (quantiles / self.own_std).float(), (self.factors.double() / self.own_std[:, None]).float()

    def draw(self, n_samples: int, generator: torch.Generator) -> FiringDraw:
        return LowRankDraw(self, n_samples, generator)


class LowRankDraw(FiringDraw):
    """Cells that are independent given the shared normals `[n_samples rank]`."""

    def __init__(self, firing: LowRankFiring, n_samples: int, generator: torch.Generator) -> None:
        self.n_samples, self.generator = n_samples, generator
        self.offsets, self.loadings = firing.scaled
        self.shared = torch.randn(n_samples, self.loadings.shape[1], generator=generator)

    def among(self, features: Int[Tensor, " m"]) -> Fired:
        """Block by block, features of similar threshold together."""
        features = features[self.offsets[features] < torch.inf]
        features = features[self.offsets[features].argsort(stable=True)]
        block = max(CELLS_PER_BLOCK // max(self.n_samples, 1), 1)
        keys = [self.keys_of_block(members) for members in torch.split(features, block)]
        return fired_of_keys(keys, len(self.offsets))

    def keys_of_block(self, features: Int[Tensor, " m"]) -> Int[Tensor, " nnz"]:
        """row * n_features + feature of the cells that fire.

        A dense draw of eps costs 6 ns per cell, most of them to learn that a rare feature is silent. Cells whose
        threshold lies above `cut` can fire only where eps > cut: those places are drawn by geometric gaps and thinned.
        """
        offsets, loadings = self.offsets[features], self.loadings[features]
        thresholds = torch.addmm(offsets, self.shared, loadings.T, alpha=-1)
        cut = float(offsets.min() - 2 * loadings.norm(dim=1).max())  # about 2 % of the thresholds lie below
        if not cut > 0.8:  # above 20 % of candidates the dense draw is faster
            noise = torch.randn(thresholds.shape, generator=self.generator)
            flat = (noise > thresholds).flatten().nonzero()[:, 0]
        else:
            flat_thresholds = thresholds.flatten()
            tail = float(torch.special.ndtr(torch.tensor(-cut, dtype=torch.float64)))
            candidates = rare_positions(flat_thresholds.numel(), tail, self.generator)
            frequent = (flat_thresholds < cut).nonzero()[:, 0]
            candidates = candidates[flat_thresholds[candidates] >= cut]
            flat = torch.cat(
                [
                    candidates[self.exceeds(flat_thresholds[candidates], given=tail)],
                    frequent[self.exceeds(flat_thresholds[frequent], given=1.0)],
                ]
            )
        rows = flat // len(features)
        return rows * len(self.offsets) + features[flat - rows * len(features)]

    def at(self, rows: Int[Tensor, " cells"], features: Int[Tensor, " cells"]) -> Bool[Tensor, " cells"]:
        lowered = (self.shared[rows] * self.loadings[features]).sum(dim=1)
        return self.exceeds(self.offsets[features] - lowered, given=1.0)

    def exceeds(self, thresholds: Float[Tensor, " cells"], *, given: float) -> Bool[Tensor, " cells"]:
        """Whether a normal exceeds each threshold, given an event of this probability that contains it."""
        uniform = torch.rand(len(thresholds), generator=self.generator, dtype=torch.float64)
        upper_tail: Tensor = torch.special.ndtr(-thresholds.double())
        return uniform * given < upper_tail


@dataclass(frozen=True, kw_only=True)
class CopulaFiring(Firing):
    """g ~ N(0, R) for any correlation matrix R; feature i fires iff g_i > quantile(1 - p_i). n up to ~1,000."""

    correlation: Float[Tensor, "n_features n_features"]
    """R: unit diagonal, symmetric, positive definite; the correlation of the normals, not of the firings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.n_features
        if self.correlation.shape != (n, n):
            raise ValueError(
                f"CopulaFiring: a correlation matrix of shape {tuple(self.correlation.shape)} given for {n} features. "
                f"Give one of shape ({n}, {n})."
            )
        matrix = self.correlation.double()
        if not torch.allclose(matrix, matrix.T, atol=1e-6) or not torch.allclose(
            matrix.diagonal(), torch.ones(n, dtype=torch.float64), atol=1e-6
        ):
            raise ValueError(
                "CopulaFiring: the correlation matrix must be finite and symmetric, with ones in its diagonal."
            )
        if torch.linalg.cholesky_ex(matrix).info != 0:
            raise ValueError(
                f"CopulaFiring: the correlation matrix is not positive definite (smallest eigenvalue "
                f"{float(torch.linalg.eigvalsh(matrix)[0]):.3g}). Shrink it towards the identity, or use LowRankFiring."
            )

    @cached_property
    def root(self) -> Float[Tensor, "n_features n_features"]:
        """Lower triangular L with L L^T = R."""
        lower: Tensor = torch.linalg.cholesky(self.correlation.double())
        return lower.float()

    def draw(self, n_samples: int, generator: torch.Generator) -> FiringDraw:
        n = self.n_features
        quantiles = firing_quantiles(self.probabilities).float()
        block = max(CELLS_PER_BLOCK // n, 1)
        keys = []
        for start in range(0, n_samples, block):
            normals = torch.randn(min(block, n_samples - start), n, generator=generator) @ self.root.T
            keys.append((normals > quantiles).flatten().nonzero()[:, 0] + start * n)
        return KnownDraw(fired_of_keys(keys, n), n_samples, n)


def firing_quantiles(probabilities: Float[Tensor, " n_features"]) -> Float[Tensor, " n_features"]:
    """The value that a standard normal exceeds with each probability (float64; infinite at 0 and 1)."""
    lower: Tensor = torch.special.ndtri(probabilities.double())
    return -lower
