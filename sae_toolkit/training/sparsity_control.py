"""Steering a sparsity penalty to a target L0, so that nobody has to search for a coefficient.

The weight w of the penalty is adapted by integral feedback in its logarithm: log w grows with the log of the ratio of a
smoothed batch L0 to the current target. Working in logs makes one gain fit all scales of w.
"""

from collections.abc import Mapping
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.training.learning import LearningConfig
from sae_toolkit.training.schedules import warmup_factor

SMOOTHING = 0.95
"""Decay per step of the smoothed L0: about 20 steps of memory."""
GAIN = 0.02
"""Change of log w per step and unit of log(L0 / target)."""
TOLERANCE = 0.1
"""Relative distance from the target at the end of a run from which the run says that it missed."""
SETTLED_STEPS = 1000
"""Steps after which an SAE whose loss asks for an L0 should have it."""
LOG_WEIGHT_LIMIT = 12.0
"""|log w| beyond which no penalty of this kind reaches the target; the run then says so."""


class SparsityControl:
    """The factor on an SAE's sparsity penalty: a warm-up to 1, or feedback towards `target_l0`.

    With a target, the L0 asked for falls geometrically from that of the first batch to the target over the warm-up: an
    abrupt demand makes the weight overshoot, and what it kills then stays dead.
    """

    def __init__(
        self, config: LearningConfig, *, n_steps: int, device: torch.device, own_target_l0: float | None = None
    ) -> None:
        """`own_target_l0`: what the loss of an SAE asks for by itself; it is watched, not steered."""
        self.config = config
        self.wanted_l0 = own_target_l0 if config.target_l0 is None else config.target_l0
        self.n_steps = n_steps
        self.log_weight = torch.zeros((), device=device)
        self.initial_l0 = torch.zeros((), device=device)
        self.smoothed_l0 = torch.zeros((), device=device)

    def progress(self, step: int) -> float:
        """From 0 to 1 over the warm-up."""
        return warmup_factor(step, self.n_steps, warmup_fraction=self.config.sparsity_warmup_fraction)

    def weight(self, step: int) -> Float[Tensor, ""]:
        """What multiplies the penalty at this step."""
        if self.config.target_l0 is None:
            return self.log_weight.exp() * self.progress(step)
        return self.log_weight.exp()

    def update(self, l0: Float[Tensor, ""], step: int) -> None:
        """Takes in the mean number of active latents of one batch; nothing to do without a target."""
        if self.wanted_l0 is None:
            return
        if step == 0:
            self.initial_l0.copy_(l0.clamp_min(self.wanted_l0))
            self.smoothed_l0.copy_(l0)
        self.smoothed_l0.lerp_(l0, 1 - SMOOTHING)
        if self.config.target_l0 is None:
            return
        asked = self.initial_l0.log().lerp(torch.full_like(l0, log(self.config.target_l0)), self.progress(step))
        excess = self.smoothed_l0.clamp_min(1e-3).log() - asked
        self.log_weight.add_(excess.clamp(-1, 1), alpha=GAIN).clamp_(-LOG_WEIGHT_LIMIT, LOG_WEIGHT_LIMIT)

    def shortfall(self) -> str | None:
        """What to say when the smoothed L0 ended more than 10 % away from its target; None where all is well."""
        wanted = self.wanted_l0
        reached = float(self.smoothed_l0)
        if wanted is None or abs(reached - wanted) <= TOLERANCE * wanted:
            return None
        if self.config.target_l0 is None:
            return (
                None
                if self.n_steps < SETTLED_STEPS
                else (
                    f"L0 {wanted:g} asked by its loss, but L0 {reached:.3g} reached: its penalty only balances the "
                    f"reconstruction error. Raise l0_coefficient, or steer a JumpReluSAE with target_l0."
                )
            )
        return (
            f"target_l0={wanted:g} asked, but L0 {reached:.3g} reached: the weight of the penalty had not settled. "
            f"Train for more steps (a smaller batch_size gives more), or lower sparsity_warmup_fraction."
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {"log_weight": self.log_weight, "initial_l0": self.initial_l0, "smoothed_l0": self.smoothed_l0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
