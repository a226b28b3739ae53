"""Following a run: records for a logger, numbers from a probe. Nothing in here changes a weight or stops the run."""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.training.learner import Learner, StepResult
from sae_toolkit.training.run import TrainingRun

LogRecord = dict[str, Any]
Log = Callable[[LogRecord], None]
Probe = Callable[[Mapping[str, AbstractSAE]], Mapping[str, Mapping[str, float]]]


class Watch:
    """Turns steps into log records; whatever goes wrong in here never stops the training."""

    def __init__(self, log: Log | None, log_every_steps: int, probe: Probe | None, probe_every_steps: int) -> None:
        for name, every in (("log_every_steps", log_every_steps), ("probe_every_steps", probe_every_steps)):
            if every < 1:
                raise ValueError(f"train: {name}={every} given, but it must be at least 1.")
        self.log, self.log_every_steps = log, log_every_steps
        self.probe, self.probe_every_steps = probe, probe_every_steps
        self.started = time.perf_counter()
        self.first_step: int | None = None
        self.failed: set[str] = set()

    def report(self, run: TrainingRun, results: Mapping[str, StepResult]) -> None:
        """Logs (and probes) the steps that are due, and always the last one."""
        if self.first_step is None:
            self.first_step = run.step - 1
        last = run.step == run.config.n_steps
        probing = self.probe is not None and (last or run.step % self.probe_every_steps == 0)
        if self.log is None or not (last or probing or run.step % self.log_every_steps == 0):
            return
        log, probe, record = self.log, self.probe, self.record(run, results)
        if probing and probe is not None:
            run.calibrate_()
            self.attempt("the probe", lambda: record.update(probe=probed(probe, run.saes)))
        self.attempt("logging", lambda: log(record))

    def attempt(self, what: str, call: Callable[[], None]) -> None:
        """Calls; a failure is warned about once and ignored, because the run is worth more than its record."""
        try:
            call()
        except Exception as error:
            if what not in self.failed:
                warnings.warn(f"{what} failed and is ignored from here on: {error!r}", stacklevel=2)
            self.failed.add(what)

    def record(self, run: TrainingRun, results: Mapping[str, StepResult]) -> LogRecord:
        """Plain numbers: the only place where the loop waits for the device."""
        seconds = time.perf_counter() - self.started
        steps_done = run.step - (self.first_step or 0)
        rate = steps_done * run.config.batch_size / max(seconds, 1e-9)
        return {
            "step": run.step,
            "n_steps": run.config.n_steps,
            "samples": run.step * run.config.batch_size,
            "seconds": seconds,
            "samples_per_second": rate,
            "seconds_left": (run.config.n_steps - run.step) * run.config.batch_size / rate,
            "saes": {name: sae_record(run.learners[name], result, run.step - 1) for name, result in results.items()},
        }


def sae_record(learner: Learner, result: StepResult, step: int) -> dict[str, float]:
    """The numbers of one SAE's last step."""
    return {
        "loss": float(result.loss()),
        **{name: float(term) for name, term in result.terms.items()},
        "l0": float(result.l0),
        "dead": float(learner.dead.mask().float().mean()),
        "gradient_norm": float(result.gradient_norm),
        "learning_rate": learner.learning_rate(step),
        "sparsity_weight": float(learner.control.weight(step)),
    }


def probed(probe: Probe, saes: Mapping[str, AbstractSAE]) -> dict[str, dict[str, float]]:
    """The probe's numbers, with the SAEs in eval mode while it looks and back in their own mode afterwards."""
    modes = {name: sae.training for name, sae in saes.items()}
    for sae in saes.values():
        sae.eval()
    try:
        with torch.no_grad():
            return {name: dict(numbers) for name, numbers in probe(saes).items()}
    finally:
        for name, sae in saes.items():
            sae.train(modes[name])
