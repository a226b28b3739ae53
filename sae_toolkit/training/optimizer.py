"""Adam and the unit-norm constraint on decoder rows."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_toolkit.training.learning import LearningConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: LearningConfig) -> torch.optim.Adam:
    """Fused Adam (one kernel per update) at the peak learning rate."""
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(parameters, lr=config.learning_rate, betas=betas, fused=True)


@torch.no_grad()
def project_decoder_gradient_(W_dec: nn.Parameter) -> None:
    """Removes from the gradient of each unit row its part along the row (Bricken et al. 2023, appendix).

    Adam would otherwise accumulate moments for a direction that the renormalisation undoes.
    """
    if W_dec.grad is not None:
        along = torch.einsum("ld,ld->l", W_dec.grad, W_dec)
        W_dec.grad.addcmul_(along.unsqueeze(1), W_dec, value=-1)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Float[Tensor, ""]:
    """Euclidean norm of all gradients together."""
    norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    total: Tensor = torch.stack(norms).norm()
    return total


def clip_gradients_(parameters: Iterable[nn.Parameter], norm: Float[Tensor, ""], *, limit: float) -> None:
    """Scales all gradients so that their norm is at most `limit`.

    Apart from the norm, unlike in torch's `clip_grad_norm_`: one NaN there turns every gradient into NaN before anybody
    can say which one it was.
    """
    scale = (limit / (norm + 1e-6)).clamp(max=1)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale)


@torch.no_grad()
def normalise_rows_(W_dec: Float[Tensor, "d_sae d_in"]) -> None:
    """Scales every row to length 1."""
    W_dec /= W_dec.norm(dim=1, keepdim=True).clamp_min(torch.finfo(W_dec.dtype).tiny)
