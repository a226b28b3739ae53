"""JumpReLU SAE (Rajamanoharan et al. 2024, "Jumping Ahead", arXiv 2407.14435): a learned threshold for each latent.

z = pre * H(pre - theta) (equation 6); the loss counts the active latents, sum_i H(pre_i - theta_i) (equation 9). Both
jump, so theta learns from pseudo-derivatives with a rectangular window of width eps (equations 11 and 12). Here theta
is a parameter itself, not its logarithm: under Adam a log threshold that starts near 0 hardly moves.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.dense import DenseSAE


class ThresholdedSAE(DenseSAE):
    """z = p where p = (x - b_dec) W_enc + b_enc exceeds theta and 0; JumpReLU SAEs differ in their penalty."""

    has_sparsity_penalty: ClassVar[bool] = True
    latent_axes: ClassVar[dict[str, int]] = {**AbstractSAE.latent_axes, "threshold": 0}

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractSAE.Config):
        """Choices of a JumpReLU SAE."""

        bandwidth: float = 0.5
        """Width of the window around a threshold in which samples move it, in normalised units (coordinates of x
        have mean square 1, so that ||x|| is near sqrt(d_in)). Wide windows are biased, narrow ones noisy."""
        initial_threshold: float = 0.1
        """Where thresholds start, in the same units."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("bandwidth", "initial_threshold"):
                if not getattr(self, name) > 0:
                    raise ValueError(f"JumpReLU: {name}={getattr(self, name)} given, but it must be positive.")

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.threshold = nn.Parameter(torch.full((config.d_sae,), config.initial_threshold))

    def activate(self, pre_acts: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
        return jump_relu(pre_acts, self.threshold, self.config.bandwidth)

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return self.threshold.detach().clamp_min(0)

    @torch.no_grad()
    def restart_(self, latents: Tensor, directions: Tensor, *, encoder_length: Tensor) -> None:
        super().restart_(latents, directions, encoder_length=encoder_length)
        self.threshold[latents] = self.config.initial_threshold


class JumpReluSAE(ThresholdedSAE):
    """Loss = mean squared error + l0 * mean_b sum_i H(pre_i - theta_i) / d_in: the L0 penalty itself."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ThresholdedSAE.Config):
        """Choices of a JumpReLU SAE with an L0 penalty."""

        l0_coefficient: float = 1.0
        """Penalty per d_in active latents, so that it does not pay to use a latent for a contribution to x that is
        shorter than sqrt(l0_coefficient) in normalised units."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.l0_coefficient >= 0:
                raise ValueError(f"JumpReluSAE: l0_coefficient={self.l0_coefficient} given; it must not be negative.")

    config: Config

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        l0 = step_l0(self.trained_pre_acts(output), self.threshold, self.config.bandwidth)
        weight = self.config.l0_coefficient * signals.sparsity_weight / self.d_in
        return {"mse": self.normalised_error(x, output).square().mean(), "l0_penalty": weight * l0}


def jump_relu(
    pre_acts: Float[Tensor, "*batch d_sae"], threshold: Float[Tensor, " d_sae"], bandwidth: float
) -> Float[Tensor, "*batch d_sae"]:
    """ReLU(p) H(p - theta), with d/d theta = -theta / eps inside the window (equation 11); theta < 0 acts as 0."""
    result: Tensor = JumpRelu.apply(pre_acts, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return result


def step_l0(
    pre_acts: Float[Tensor, "*batch d_sae"], threshold: Float[Tensor, " d_sae"], bandwidth: float
) -> Float[Tensor, ""]:
    """Mean number of latents per sample with p > theta, with d/d theta = -1 / eps in the window (equation 12)."""
    steps: Tensor = Step.apply(pre_acts, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return steps.sum(-1).mean()


class JumpRelu(torch.autograd.Function):
    """The JumpReLU with its pseudo-derivative."""

    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_acts, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(pre_acts > threshold.clamp_min(0), pre_acts, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        pre_acts, threshold = ctx.saved_tensors
        bar = threshold.clamp_min(0)
        grad_pre_acts = torch.where(pre_acts > bar, grad, 0.0)
        inside = torch.where((pre_acts - bar).abs() < ctx.bandwidth / 2, grad, 0.0)
        grad_threshold = -bar / ctx.bandwidth * inside.flatten(0, -2).sum(0)
        return grad_pre_acts, grad_threshold, None


class Step(torch.autograd.Function):
    """1 where a pre-activation exceeds its threshold; only the threshold gets a (pseudo-)gradient."""

    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre_acts, threshold)
        ctx.bandwidth = bandwidth
        return (pre_acts > threshold.clamp_min(0)).to(pre_acts.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        pre_acts, threshold = ctx.saved_tensors
        inside = torch.where((pre_acts - threshold.clamp_min(0)).abs() < ctx.bandwidth / 2, grad, 0.0)
        return None, -inside.flatten(0, -2).sum(0) / ctx.bandwidth, None
