"""Pre-activations that a loss asks for beside the latents, handed on in the output of training mode."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE, Latents, SAEOutput, with_batch


def forward_keeping(
    sae: AbstractSAE, x: Float[Tensor, "*batch d_in"], encode: Callable[[Tensor], tuple[Latents, Latents]]
) -> SAEOutput:
    """The forward pass of a variant whose `encode` gives latents and pre-activations of normalised samples."""
    latents, pre_acts = (with_batch(rows, x.shape[:-1]) for rows in encode(sae.normalised_rows(x)))
    return SAEOutput(sae.decode(latents), latents, pre_acts if sae.training else None)


def kept_pre_acts(sae: AbstractSAE, output: SAEOutput) -> Latents:
    """The pre-activations behind an output; a ValueError for an output of eval mode, which has none."""
    if output.pre_acts is None:
        raise ValueError(
            f"{type(sae).__name__}.loss_terms: the output given was computed in eval mode, which keeps no "
            f"pre-activations. Call train() on the SAE before the forward pass."
        )
    return output.pre_acts
