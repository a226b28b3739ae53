"""Adam and the unit-norm constraint on decoder rows."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim.adam import adam

from sae_toolkit.saes.sparse_ops import row_dots
from sae_toolkit.training.learning import LearningConfig


class FusedAdam(torch.optim.Adam):
    """Adam whose one pass over weights, gradients and moments also clips, and skips what is not finite."""

    @torch.no_grad()
    def clipped_step_(self, norm: Float[Tensor, ""], finite: Bool[Tensor, ""], *, limit: float | None) -> None:
        """One update with gradients scaled so that their global norm is at most `limit`; none at all unless `finite`.

        The fused kernel divides by `grad_scale` as it reads the gradients, and does nothing where `found_inf` is 1:
        neither needs a pass of its own over the gradients, and nobody waits for the device.
        """
        scale = None if limit is None else ((norm + 1e-6) / limit).clamp(min=1)
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self.state_of(parameter) for parameter in parameters]
            adam(
                [rowwise(parameter, parameter) for parameter in parameters],
                [rowwise(parameter.grad, parameter) for parameter in parameters],
                [rowwise(state["exp_avg"], p) for state, p in zip(states, parameters, strict=True)],
                [rowwise(state["exp_avg_sq"], p) for state, p in zip(states, parameters, strict=True)],
                [],
                [state["step"] for state in states],
                fused=True,
                grad_scale=scale,
                found_inf=(~finite).to(norm.dtype),
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )

    def state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Step count and moments, at zero where this is the first update."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def rowwise(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """The tensor as the kernel wants it, row after row in memory; it copies others, which W_enc would be."""
    return tensor if parameter.is_contiguous() else tensor.mT


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


@torch.no_grad()
def normalise_rows_(W_dec: Float[Tensor, "d_sae d_in"]) -> None:
    """Scales every row to length 1."""
    W_dec /= W_dec.norm(dim=1, keepdim=True).clamp_min(torch.finfo(W_dec.dtype).tiny)
