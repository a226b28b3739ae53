"""One contestant of `step_speed.py` in its own process: told what to train, then asked for one round after another.

Needs torch alone, so that it runs in any tool's environment. Lines of JSON come in and go out.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

N_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training step to be timed."""

    who: str
    variant: str
    d_in: int
    d_sae: int
    batch: int
    k: int
    threads: int
    device: str
    dead_share: float
    """Share of latents that count as dead in every step, so that AuxK has work."""
    steps: int
    """Steps per round."""
    clock: str
    """"wall" (the only honest one), or "cpu": processor time, which other people's work hardly touches."""

    @property
    def n_dead(self) -> int:
        return int(self.dead_share * self.d_sae)

    @property
    def n_products(self) -> int:
        """Dense products of batch x d_in x d_sae in a step where every latent is active.

        Encode, decode, and the gradients of both weights and of the latents; a Gated SAE decodes and differentiates
        its gate as well.
        """
        return 7 if self.variant == "GatedSAE" else 5


Step = Callable[[Tensor, int], None]
"""One whole training step on a batch; the number counts from 0."""


def batches(task: Task) -> list[Tensor]:
    """Sparse features in superposition, mean square about 1: the same for every contestant."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(2 * task.d_in, task.d_in, generator=generator), dim=1)
    made = []
    for _ in range(N_BATCHES):
        fires = torch.rand(task.batch, len(directions), generator=generator) < 20 / len(directions)
        strengths = fires * torch.rand(task.batch, len(directions), generator=generator)
        x = strengths @ directions + 0.01 * torch.randn(task.batch, task.d_in, generator=generator)
        made.append((x / x.square().mean().sqrt()).to(task.device))
    return made


def resident_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak_mb(task: Task, before: float) -> float:
    """The most memory since the SAE began to be built, above what the process had then."""
    if task.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20 - before
    return resident_mb("VmHWM") - before


def mark_memory(task: Task) -> float:
    if task.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident_mb("VmRSS")


def timed(task: Task, step: Step, xs: list[Tensor], number: int) -> float:
    clock = time.perf_counter if task.clock == "wall" else time.process_time
    if task.device == "cuda":
        torch.cuda.synchronize()
    started = clock()
    step(xs[number % len(xs)], number)
    if task.device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def serve(make: Callable[[Task, list[Tensor]], Step | None], version: Callable[[str], str]) -> None:
    """Builds what the first line asks for, then answers every further line with one round."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a tool prints is no answer

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    task = Task(**json.loads(sys.stdin.readline()))
    torch.set_num_threads(task.threads)
    xs = batches(task)
    before = mark_memory(task)
    number = 2
    try:
        step = make(task, xs)
        for i in range(number if step else 0):  # the first steps allocate moments and warm caches
            step(xs[i % len(xs)], i)
    except Exception as error:  # a tool that cannot take this step is a result, too
        answer(version=version(task.who), missing=f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return
    answer(version=version(task.who), missing=None if step else "no such variant")
    for _ in sys.stdin if step else ():
        seconds = []
        for _ in range(task.steps):
            seconds.append(timed(task, step, xs, number))
            number += 1
        answer(seconds=statistics.median(seconds), peak_mb=peak_mb(task, before))
