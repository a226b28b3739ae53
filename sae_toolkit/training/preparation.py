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
    if sae.target_normaliser is not sae.normaliser:
        sae.target_normaliser.fit_(target)
    sae.b_dec.copy_(geometric_median(sae.target_normaliser.normalise(target)))


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
