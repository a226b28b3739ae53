"""Adam and the unit-norm constraint on decoder rows."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae_toolkit.saes.sparse_ops import row_dots
from sae_toolkit.training.learning import LearningConfig


class FusedAdam(torch.optim.Adam):
    """Adam with the two tensors that its fused kernel reads where a gradient scaler has set them."""

    grad_scale: Tensor | None
    """What gradients are divided by."""
    found_inf: Tensor | None
    """1 where the update must not happen."""


def make_optimizer(parameters: Iterable[nn.Parameter], config: LearningConfig) -> FusedAdam:
    """Fused Adam (one kernel per update) at the peak learning rate."""
    betas = (config.beta1, config.beta2)
    return FusedAdam(parameters, lr=config.learning_rate, betas=betas, fused=True)


@torch.no_grad()
def project_decoder_gradient_(W_dec: nn.Parameter) -> None:
    """Removes from the gradient of each unit row its part along the row (Bricken et al. 2023, appendix).

    Adam would otherwise accumulate moments for a direction that the renormalisation undoes.
    """
    if W_dec.grad is not None:
        along = row_dots(W_dec.grad, W_dec)
        W_dec.grad.addcmul_(along.unsqueeze(1), W_dec, value=-1)


def gradient_norms(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Float[Tensor, ""]]:
    """Euclidean norm of every gradient, by the name of its parameter."""
    return {name: parameter.grad.norm() for name, parameter in parameters if parameter.grad is not None}


def clipped_step_(
    optimizer: FusedAdam, norm: Float[Tensor, ""], finite: Bool[Tensor, ""], *, limit: float | None
) -> None:
    """One update with gradients scaled so that their global norm is at most `limit`; none at all unless `finite`.

    The fused kernel divides by `grad_scale` as it reads the gradients, and does nothing where `found_inf` is 1: neither
    needs a pass of its own over the gradients, and nobody waits for the device.
    """
    optimizer.grad_scale = None if limit is None else ((norm + 1e-6) / limit).clamp(min=1)
    optimizer.found_inf = (~finite).to(norm.dtype)
    optimizer.step()


@torch.no_grad()
def normalise_rows_(W_dec: Float[Tensor, "d_sae d_in"]) -> None:
    """Scales every row to length 1."""
    W_dec /= W_dec.norm(dim=1, keepdim=True).clamp_min(torch.finfo(W_dec.dtype).tiny)
