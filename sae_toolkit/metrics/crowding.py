"""How much latents that are active on the same sample overlap, and how much of the error that explains; any source."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import N_BLOCKS, block_numbers, divide, ratio, sums_score
from sae_toolkit.metrics.co_firing import Column, KeptColumns, matrix_of
from sae_toolkit.metrics.matching import BLOCK_ENTRIES, unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

CROWDING_SAMPLES = 10_000
NEGLIGIBLE_SPREAD = 1e-10
"""Relative: what varies less than this is constant up to rounding."""


class Crowding(Metric):
    """Over the first 10,000 samples; A: the active latents of a sample, y = sum over A of z_i d_i, e = x - x_hat.

    The others are felt along latent i as t_i = sum over j in A, j != i, of z_j (d_j . d_i / ||d_i||).
    Overlap of a sample: U = sum over A of t_i^2; energy: E = sum over A of z_i^2 ||d_i||^2. Two latents with z = 1,
    unit rows and cosine .6: t = (.6, .6), U = .72, E = 2.

    `active_overlap`: sum U / sum E over samples; 0 where active latents are orthogonal, .36 in the example.
    `crowding_error_share`: the share of the variance of ||e||^2 over samples that U explains in a linear regression
    beyond a constant, the number of active latents, E and E^2, with the sign of U's coefficient: error that comes with
    overlap, not with busy or strong samples. Intervals: bootstrap over documents or runs of samples, in 256 blocks.
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        del source
        return [cls()]

    def __init__(self) -> None:
        self.kept = KeptColumns(CROWDING_SAMPLES)
        self.n_samples = 0
        self.errors: list[tuple[Tensor, Tensor]] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        wanted = CROWDING_SAMPLES - self.kept.n_samples
        if wanted:
            error = (batch.wanted().detach().cpu().double() - output.reconstruction.detach().cpu().double())[:wanted]
            self.errors.append((error.square().sum(1), block_numbers(batch, self.n_samples).cpu()[:wanted]))
            self.kept.update(output.sparse_latents())
        self.n_samples += len(batch.activations)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        n_active, energy, overlap = active_overlaps(self.kept.columns(), self.kept.n_samples, sae.decoder_directions())
        error, blocks = (torch.cat(parts).numpy() for parts in zip(*self.errors, strict=True))
        quantities = np.stack([np.ones_like(error), n_active, energy, energy**2, overlap, error], axis=1)
        size = np.sqrt((quantities**2).mean(axis=0))
        scaled = quantities / np.where(size > 0, size, 1.0)  # or the normal equations are ill-conditioned
        products = (scaled[:, :, None] * scaled[:, None, :]).reshape(len(error), -1)
        n, used = len(error), np.unique(blocks)
        return {
            "active_overlap": sums_score(
                by_block(np.stack([overlap, energy], axis=1), blocks)[used], ratio, n=n, id="active_overlap/v1"
            ),
            "crowding_error_share": sums_score(
                by_block(products, blocks)[used], added_share, n=n, id="crowding_error_share/v1"
            ),
        }


def active_overlaps(
    latents: list[Column], n_samples: int, decoder: Tensor
) -> tuple[Float64[np.ndarray, " n_samples"], Float64[np.ndarray, " n_samples"], Float64[np.ndarray, " n_samples"]]:
    """Number of active latents, E and U of each sample; no pairs needed: t_i = (y - z_i d_i) . d_i / ||d_i||."""
    active = matrix_of(latents, n_samples)
    rows = np.repeat(np.arange(n_samples), np.diff(active.indptr))
    vectors, units = decoder.detach().cpu().double().numpy(), unit_rows(decoder).numpy()
    own = active.data * np.linalg.norm(vectors, axis=1)[active.indices]
    written = active @ vectors
    felt = np.zeros(len(rows))
    at_once = max(1, BLOCK_ENTRIES // decoder.shape[1])
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        felt[part] = (written[rows[part]] * units[active.indices[part]]).sum(axis=1) - own[part]
    sums = [np.bincount(rows, weights=w, minlength=n_samples) for w in (np.ones_like(own), own**2, felt**2)]
    return sums[0].astype(float), sums[1].astype(float), sums[2].astype(float)


def by_block(values: Float64[np.ndarray, "n k"], blocks: np.ndarray) -> Float64[np.ndarray, "n_blocks k"]:
    """Sums over the samples of each of the N_BLOCKS blocks."""
    sums = np.zeros((N_BLOCKS, values.shape[1]))
    np.add.at(sums, blocks, values)
    return sums


def added_share(sums: Float64[np.ndarray, "n 36"]) -> Float64[np.ndarray, " n"]:
    """What the last regressor adds to R^2, with the sign of its coefficient, from sums of products.

    Columns: constant, three controls, the regressor asked about, the target. NaN where the target never changes.
    """
    products = sums.reshape(-1, 6, 6)
    target = products[:, 5, 5]
    left = target[:, None] - np.stack([explained(products, columns) for columns in (1, 4, 5)], axis=1)
    sign = np.sign(coefficients(products, 5)[:, -1])
    total = np.where(left[:, 0] > NEGLIGIBLE_SPREAD * target, left[:, 0], 0.0)
    return divide(sign * (left[:, 1] - left[:, 2]).clip(min=0), total, otherwise=np.nan)


def coefficients(products: Float64[np.ndarray, "n 6 6"], columns: int) -> Float64[np.ndarray, "n columns"]:
    """Least squares of the target on the first few columns; the smallest ones where columns depend on each other."""
    inverse = np.linalg.pinv(products[:, :columns, :columns], rcond=NEGLIGIBLE_SPREAD, hermitian=True)
    solution: Float64[np.ndarray, "n columns"] = np.einsum("nij,nj->ni", inverse, products[:, :columns, 5])
    return solution


def explained(products: Float64[np.ndarray, "n 6 6"], columns: int) -> Float64[np.ndarray, " n"]:
    """Sum of squares of the target that the first few columns explain."""
    total: Float64[np.ndarray, " n"] = (coefficients(products, columns) * products[:, :columns, 5]).sum(axis=1)
    return total
