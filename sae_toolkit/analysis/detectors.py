"""Which latent stands for a known label of samples, such as their token: what a circuit of latents is read at."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.metrics.co_firing import Column, KeptColumns
from sae_toolkit.metrics.firing_matching import FiringMatching, match_by_firing
from sae_toolkit.saes.base import AbstractDictionary

ROWS_AT_ONCE = 4096


@torch.no_grad()
def detectors(
    sae: AbstractDictionary,
    activations: Float[Tensor, "n_samples d_in"],
    labels: Int[Tensor, " n_samples"],
    wanted: Int[Tensor, " n_labels"],
) -> FiringMatching:
    """The best latent for "the label is this one", label by label (`match_by_firing`: chosen and scored on halves)."""
    kept = KeptColumns(len(labels))
    for part in torch.split(activations, ROWS_AT_ONCE):
        kept.update(sae.forward(part).sparse_latents())
    features = [where(labels == label) for label in wanted]
    return match_by_firing(features, kept.columns(), len(labels))


@torch.no_grad()
def mean_when_active(sae: AbstractDictionary, activations: Float[Tensor, "n_samples d_in"]) -> Float[Tensor, " d_sae"]:
    """How strongly each latent fires where it does; 0 for one that never fires."""
    sums, counts = torch.zeros(2, sae.d_sae, dtype=torch.float64)
    for part in torch.split(activations, ROWS_AT_ONCE):
        rows = sae.forward(part).sparse_latents()
        sums.index_add_(0, rows.indices, rows.values.double())
        counts += rows.column_counts()
    means: Tensor = (sums / counts.clamp(min=1)).float()
    return means


def where(holds: Tensor) -> Column:
    """1 on the samples where something holds."""
    samples = holds.nonzero()[:, 0].numpy().astype(np.int32)
    return Column(samples, np.ones(len(samples)))


def rows_or_zero(vectors: Float[Tensor, "d_sae d"], latents: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """The vectors of some latents; zeros where there is none (-1)."""
    found: Tensor = vectors[latents.clamp(min=0)] * (latents >= 0).to(vectors)[:, None]
    return found
