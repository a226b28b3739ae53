"""What an SAE takes from data before its first step and after its last: normaliser, b_dec, calibrated threshold.

Both read streams of their own, so the training stream and its position are never touched.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.seeding import derived_seed

GEOMETRIC_MEDIAN_STEPS = 100
GEOMETRIC_MEDIAN_TOLERANCE = 1e-6
LATENTS_AT_ONCE = 256
"""Latents whose responses to all samples of the preparation are in memory at a time."""


def sample_batches(
    source: ActivationSource, *, purpose: str, n_samples: int, batch_size: int, seed: int
) -> Iterator[Float[Tensor, "batch d_in"]]:
    """Raw activations of about `n_samples` samples of the train split, from a stream used for this purpose alone."""
    stream = source.stream(batch_size, seed=derived_seed(seed, purpose), split="train")
    for _ in range(max(1, -(-n_samples // batch_size))):
        yield next(stream).activations.float()


@torch.no_grad()
def initialise_from_data_(
    sae: AbstractSAE,
    sample: Float[Tensor, "n_samples d_in"],
    *,
    target: Float[Tensor, "n_samples d_out"] | None = None,
) -> None:
    """Fits the normalisers and sets b_dec to the geometric median (Bricken et al. 2023); trained SAEs keep theirs.

    `target`: what a transcoder is to predict; None: the sample itself.
    """
    if bool(sae.normaliser.fitted):
        return
    sample = sample.to(sae.W_dec.device)
    sae.normaliser.fit_(sample)
    target = sample if target is None else target.to(sae.W_dec.device)
    if sae.transcodes:
        sae.target_normaliser.fit_(target)
        read = sae.normaliser.normalise(sample)
        sae.fit_bypass_(read, sae.target_normaliser.normalise(target))
        rest = target - sae.bypass(sample)
        write_what_is_read_(sae, read, sae.target_normaliser.normalise(rest))
    sae.b_dec.copy_(geometric_median(sae.target_normaliser.normalise(target)))


@torch.no_grad()
def write_what_is_read_(
    sae: AbstractSAE, read: Float[Tensor, "n_samples d_in"], target: Float[Tensor, "n_samples d_out"]
) -> None:
    """Turns each decoder row to where the target goes when its latent fires: its covariance with ReLU(x . W_enc_i).

    For an SAE that is about the encoder column itself, which is what decoder rows start from there. Random rows cost a
    transcoder features (`docs/training.md`). Rows of latents that never fire stay.
    """
    centred = (target - target.mean(0)).double()
    for first in range(0, sae.d_sae, LATENTS_AT_ONCE):
        rows = slice(first, first + LATENTS_AT_ONCE)
        firing = (read @ sae.W_enc[:, rows] + sae.b_enc[rows]).relu().double()
        response = firing.T @ centred
        length = response.norm(dim=1, keepdim=True)
        turned = sae.initial_decoder_norm * response / length.clamp_min(torch.finfo(response.dtype).tiny)
        sae.W_dec[rows] = torch.where(length > 0, turned, sae.W_dec[rows].double()).to(sae.W_dec.dtype)


def geometric_median(x: Float[Tensor, "n_samples d_in"]) -> Float[Tensor, " d_in"]:
    """The point with the least summed distance to all samples, by Weiszfeld's iteration in float64."""
    x = x.double()
    median = x.mean(0)
    for _ in range(GEOMETRIC_MEDIAN_STEPS):
        weights = 1 / (x - median).norm(dim=1).clamp_min(1e-12)
        moved = weights @ x / weights.sum()
        converged = bool((moved - median).norm() <= GEOMETRIC_MEDIAN_TOLERANCE * (1 + median.norm()))
        median = moved
        if converged:
            break
    return median.float()
