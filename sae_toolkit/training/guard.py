"""Stopping a run at the first number that is not finite, and naming the tensor it appeared in.

The optimizer skips an update that is not finite by itself (see `Learner`), so nobody has to look before each update: on
a GPU the question is answered one step later, when the answer has arrived anyway.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_toolkit.training.learner import StepResult


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


def refuse_non_finite_step(name: str, result: StepResult, *, step: int, last_good: str) -> None:
    """Raises when a loss term or a gradient of this step is not finite, naming the first of them."""
    for where, value in result.readings().items():
        if not bool(torch.isfinite(value)):
            raise NonFiniteError(
                f"step {step}: SAE {name!r} diverged, the first tensor that is not finite is its {where}. "
                f"Last good checkpoint: {last_good}. Lower the learning rate, or set clip_norm."
            )


@dataclass(frozen=True)
class Question:
    """One update of one SAE of which it is not known yet whether it was finite."""

    step: int
    name: str
    x: Float[Tensor, "batch d_in"]
    result: StepResult
    is_finite: Callable[[], bool]


class Guard:
    """Collects the steps taken and refuses those that were not finite, at most `delay_steps` later.

    `delay_steps` None: at once on the CPU, one step later elsewhere.
    """

    def __init__(self, delay_steps: int | None = None) -> None:
        self.delay_steps = delay_steps
        self.open: deque[Question] = deque()
        self.last_good = "none"

    def delay_on(self, device: torch.device) -> int:
        """After how many steps the answer is asked for."""
        if self.delay_steps is not None:
            return self.delay_steps
        return 0 if device.type == "cpu" else 1

    def watch(self, name: str, x: Float[Tensor, "batch d_in"], result: StepResult, *, step: int) -> None:
        """Takes in one step before its update (`step` counts from 1) and settles those whose answer is due."""
        self.open.append(Question(step, name, x, result, arriving(result.finite)))
        self.settle(before=step - self.delay_on(x.device))

    def settle(self, *, before: int | None = None) -> None:
        """Answers all questions up to a step (None: all of them), the oldest first."""
        while self.open and (before is None or self.open[0].step <= before):
            question = self.open.popleft()
            if not question.is_finite():
                refuse_non_finite_batch(question.x, step=question.step, last_good=self.last_good)
                refuse_non_finite_step(question.name, question.result, step=question.step, last_good=self.last_good)


def arriving(flag: Bool[Tensor, ""]) -> Callable[[], bool]:
    """Starts to bring a flag to the host; calling the result waits for this flag, but for nothing queued after it."""
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    host = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(flag, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def read() -> bool:
        arrived.synchronize()
        return bool(host)

    return read
