"""The threshold with which batch-wide selection is done at inference, where nothing may depend on the batch.

Bussmann, Leask & Nanda 2024 (arXiv 2412.06410, equation 7) average the smallest kept activation over batches, which
fires too much for small k; here the threshold is the quantile that gives exactly k latents per sample on data.
"""

from collections.abc import Iterable
from math import isnan

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.saes.selection import all_above, largest_positive
from sae_toolkit.saes.sparse_ops import with_encoder_gradient
from sae_toolkit.sparse_rows import SparseRows

ALWAYS_KEPT = 65_536
"""Largest activations kept per calibration batch even where 2 k per sample are fewer: small batches are exact."""


def uncalibrated_threshold() -> Float[Tensor, ""]:
    """What a fresh SAE holds: NaN, in fp32."""
    return torch.tensor(float("nan"))


def above_calibrated(sae: AbstractSAE, x: Float[Tensor, "batch d_in"], threshold: Float[Tensor, ""]) -> SparseRows:
    """All pre-activations of normalised samples above the calibrated threshold; a ValueError where it is none."""
    level = float(threshold)
    if isnan(level):
        raise ValueError(
            f"{type(sae).__name__}: encoding in eval mode needs a threshold, but none has been calibrated. Train "
            "it with `train`, or call `calibrate_` on batches of raw activations first."
        )
    selected = all_above(x.detach(), sae.encoder(), threshold=level)
    return with_encoder_gradient(selected, x, sae.W_enc, sae.b_enc, sae.centre)


@torch.no_grad()
def threshold_for_mean(sae: AbstractSAE, batches: Iterable[Float[Tensor, "_ d_in"]], k: int) -> Float[Tensor, ""]:
    """The threshold at which the mean number of latents over all raw samples is k; 0 where fewer are positive."""
    kept: list[Tensor] = []
    n_samples = 0
    for x in batches:
        n_samples += x.shape[0]
        candidates = max(2 * k * x.shape[0], ALWAYS_KEPT)
        normalised = sae.normaliser.normalise(x)
        kept.append(largest_positive(normalised, sae.encoder(), n=candidates, rank_in=normalised.dtype).values)
    if n_samples == 0:
        raise ValueError(f"{type(sae).__name__}.calibrate_: no samples given; pass at least one batch of activations.")
    values = torch.cat(kept)
    wanted = k * n_samples
    if values.numel() <= wanted:
        return values.new_zeros(())
    # Between two values, never on one: the same row in a batch of another size may come out one rounding away.
    last_kept, first_dropped = values.topk(wanted + 1).values[-2:]
    middle = (last_kept + first_dropped) / 2
    return torch.where(middle < last_kept, middle, first_dropped)
