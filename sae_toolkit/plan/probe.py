"""A few real steps on real activations, thrown away afterwards: what they take in memory and in time."""

import gc
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.named_sites import sites_read
from sae_toolkit.activations.shuffle import GroupReader, windows_of_pass
from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream, Split
from sae_toolkit.checkpoint import to_bytes
from sae_toolkit.plan import memory
from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.training.run import TrainConfig, TrainingRun

PROBE_STEPS = 5
PROBE_SECONDS = 5.0
"""Each kind of measurement (reading, steps) ends after so many repetitions or seconds, whichever comes first."""


class Reading:
    """Activations read from the train split, and what one sample of them took in time."""

    def __init__(self, source: ActivationSource, config: TrainConfig) -> None:
        self.pieces = (
            groups_of(source)
            if isinstance(source, GroupReader)
            else source.stream(config.batch_size, seed=config.seed, split="train")
        )
        self.batch_size = config.batch_size
        self.seconds_per_sample: float | None = None
        self.first = next(self.pieces)

    def read_on(self) -> None:
        """A few more pieces, timed; the first one was not, because whatever starts up with it is no habit."""
        started, n_timed = time.perf_counter(), 0
        while n_timed < PROBE_STEPS * self.batch_size and time.perf_counter() - started < PROBE_SECONDS:
            n_timed += len(next(self.pieces).activations)
        self.seconds_per_sample = (time.perf_counter() - started) / max(1, n_timed)


def groups_of(reader: GroupReader) -> Iterator[ActivationBatch]:
    """Forward pass after forward pass, without the shuffle buffer in between, over and over."""
    while True:
        n_kept = 0
        for start, extent in windows_of_pass(reader, "train"):
            for group in range(extent.n_groups):
                batch = reader.read_group("train", start, group)
                if len(batch.activations) > 0:
                    n_kept += len(batch.activations)
                    yield batch
        if n_kept == 0:
            raise ValueError("plan: the train split gave no sample. Give more text, or exclude less.")


class RepeatedBatches(ActivationSource):
    """Batches of a real source's width made of activations read before: steps are timed without their source."""

    def __init__(self, whole: ActivationSource, rows: Float[Tensor, "n_rows d_in"]) -> None:
        self.whole, self.rows = whole, rows

    @property
    def d_in(self) -> int:
        return self.whole.d_in

    @property
    def sites(self) -> Mapping[str, int]:
        return self.whole.sites

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "RepeatedStream":
        del seed, split
        return RepeatedStream(self.rows, batch_size)

    def describe(self) -> dict[str, Any]:
        return {"name": "RepeatedBatches", "of": self.whole.describe()}


class RepeatedStream(ActivationStream):
    """The same rows over and over; the state is the first row of the next batch."""

    def __init__(self, rows: Float[Tensor, "n_rows d_in"], batch_size: int) -> None:
        self.rows, self.batch_size, self.next_row = rows, batch_size, 0

    def __next__(self) -> ActivationBatch:
        places = torch.arange(self.next_row, self.next_row + self.batch_size, device=self.rows.device)
        self.next_row = (self.next_row + self.batch_size) % len(self.rows)
        return ActivationBatch(activations=self.rows[places % len(self.rows)])

    def state_dict(self) -> dict[str, Any]:
        return {"next_row": self.next_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.next_row = state["next_row"]


@dataclass(frozen=True)
class ProbeResult:
    """What a few steps took."""

    seconds_per_step: float
    seconds_per_sample_read: float
    seconds_of_preparation: float
    """Initial statistics and one calibration, without the reading of their samples."""
    peaks: Mapping[str, int]
    """The most memory of the whole process, by device."""
    resident_after: int
    """Main memory of the process when the optimizers are gone again and the SAEs are still there."""
    state_bytes: int
    """Everything a checkpoint keeps: weights, optimizer moments, counters."""


def probe_training(
    saes: Mapping[str, AbstractSAE], source: ActivationSource, config: TrainConfig, sites: Mapping[str, str]
) -> ProbeResult:
    """Trains the given SAEs for a few steps, with preparation, calibration and what a checkpoint makes in memory."""
    memory.reset_peaks()
    reading = Reading(source, config)
    rows = reading.first.activations.float()
    run = TrainingRun(saes, RepeatedBatches(source, rows), config, {}, sites_read(saes, source, sites))
    started = time.perf_counter()
    run.prepare_()
    preparing = time.perf_counter() - started
    seconds = time_steps(run)
    advance_with_all_dead(run)
    reading.read_on()  # the source's own temporaries, on top of all that training holds
    started = time.perf_counter()
    run.calibrate_()
    preparing += time.perf_counter() - started
    state_bytes = sum(bytes_of(sae.state_dict().values()) for sae in saes.values())
    for learner in run.learners.values():
        state_bytes += bytes_of(learner.state_dict().values())
        to_bytes(learner.state_dict())
    peaks = memory.peaks()
    del run
    gc.collect()
    assert reading.seconds_per_sample is not None
    return ProbeResult(
        seconds_per_step=seconds,
        seconds_per_sample_read=reading.seconds_per_sample,
        seconds_of_preparation=preparing,
        peaks=peaks,
        resident_after=memory.resident_bytes(),
        state_bytes=state_bytes,
    )


def time_steps(run: TrainingRun) -> float:
    """Seconds per step, the median of a few after one that warms up."""
    advance(run)
    seconds: list[float] = []
    while len(seconds) < PROBE_STEPS and sum(seconds) < PROBE_SECONDS:
        started = time.perf_counter()
        advance(run)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[len(seconds) // 2]


def advance(run: TrainingRun) -> None:
    """One step to its very end."""
    for result in run.advance_().values():
        float(result.loss())  # waits for the device


def advance_with_all_dead(run: TrainingRun) -> None:
    """One step as in the worst moment of a run: every latent counts as dead, so losses do all they ever do."""
    for learner in run.learners.values():
        learner.dead.samples_since_fired.fill_(learner.dead.dead_after_samples)
    advance(run)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Their values, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
