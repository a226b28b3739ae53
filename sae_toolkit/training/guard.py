"""Stopping a run at the first number that is not finite, and naming the tensor it appeared in."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractSAE


class NonFiniteError(ValueError):
    """Training met a NaN or an infinity; the message names step, tensor and last good checkpoint."""


def refuse_non_finite_batch(x: Float[Tensor, "batch d_in"], *, step: int, last_good: str) -> None:
    """Raises when a batch of activations holds a NaN or infinity, naming its first bad row."""
    if bool(torch.isfinite(x.sum())):
        return
    bad = (~torch.isfinite(x)).any(1).nonzero().squeeze(1)
    if bad.numel() == 0:  # finite numbers whose sum overflowed
        return
    raise NonFiniteError(
        f"step {step}: the activations hold {bad.numel()} row(s) with NaN or infinity, the first is row {int(bad[0])} "
        f"of the batch. Nothing was updated with them; last good checkpoint: {last_good}. Check the source."
    )


def refuse_non_finite_step(
    name: str, sae: AbstractSAE, terms: Mapping[str, Float[Tensor, ""]], *, step: int, last_good: str
) -> None:
    """Raises when a loss term, a gradient or a weight of this SAE is no longer finite, naming the first of them."""
    tensors = {f"loss term {key}": value for key, value in terms.items()}
    for key, parameter in sae.named_parameters():
        if parameter.grad is not None:
            tensors[f"gradient of {key}"] = parameter.grad
    tensors |= {f"weight {key}": parameter for key, parameter in sae.named_parameters()}
    for where, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(
                f"step {step}: SAE {name!r} diverged, the first tensor that is not finite is its {where}. "
                f"Last good checkpoint: {last_good}. Lower the learning rate, or set clip_norm."
            )
