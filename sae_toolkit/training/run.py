"""What changes from step to step: the SAEs, their learners and the stream, saved and restored as one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit import config as configs
from sae_toolkit.activations.source import ActivationSource, Site
from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.training.guard import Guard, refuse_non_finite_batch
from sae_toolkit.training.learner import Learner, StepResult
from sae_toolkit.training.learning import LearningConfig
from sae_toolkit.training.objective import Objective
from sae_toolkit.training.preparation import initialise_from_data_, sample_batches
from sae_toolkit.training.snapshot import CheckpointKeeper, TrainingSnapshot, refuse_other_setup


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What all SAEs of one run share."""

    n_samples: int
    """Samples (activation vectors) to train on; rounded up to whole batches."""
    batch_size: int = 1024
    """Samples per optimizer update."""
    seed: int = 0
    """Drives data order, initial statistics, resampling and calibration."""
    learning: LearningConfig = LearningConfig()
    """How each SAE learns, unless `train(..., learning={name: ...})` says otherwise for it."""
    preparation_samples: int = 16_384
    """Samples for the normaliser and b_dec before the first step, and for calibrating thresholds (own streams)."""

    def __post_init__(self) -> None:
        for name in ("n_samples", "batch_size", "preparation_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainConfig: {name}={getattr(self, name)} given, but it must be at least 1.")

    @property
    def n_steps(self) -> int:
        return -(-self.n_samples // self.batch_size)


class TrainingRun:
    """The SAEs, their learners and the stream: all that changes from step to step."""

    def __init__(
        self,
        saes: Mapping[str, AbstractSAE],
        source: ActivationSource,
        config: TrainConfig,
        learning: Mapping[str, LearningConfig],
        sites: Mapping[str, Site],
        targets: Mapping[str, Site] | None = None,
        objective: Objective | None = None,
    ) -> None:
        """`targets`: sites that transcoders predict; what is not named there predicts what it reads."""
        self.saes, self.source, self.config, self.objective = saes, source, config, objective
        self.columns = {name: source.columns(sites[name]) for name in saes}
        self.rebuilt = {**sites, **(targets or {})}
        self.target_columns = {name: source.columns(self.rebuilt[name]) for name in saes}
        self.step = 0
        self.stream = source.stream(config.batch_size, seed=config.seed, split="train")
        self.excluded: dict[str, int] = {}
        self.guard = Guard()
        self.learners = {
            name: Learner(
                sae,
                learning.get(name, config.learning),
                n_steps=config.n_steps,
                batch_size=config.batch_size,
                seed=config.seed,
            )
            for name, sae in saes.items()
        }
        self.setup: dict[str, Any] = {
            "train": configs.to_json(config),
            "source": source.describe(),
            "saes": {name: {"variant": type(s).__name__, **configs.to_json(s.config)} for name, s in saes.items()},
            "learning": {name: configs.to_json(learner.config) for name, learner in self.learners.items()},
            "sites": {name: sites[name] for name in saes},
        }
        if targets:
            self.setup["targets"] = dict(targets)
        if objective is not None:
            self.setup["objective"] = objective.describe()

    def prepare_(self) -> None:
        """Data-driven initial values, from a stream of their own."""
        if all(bool(sae.normaliser.fitted) for sae in self.saes.values()):
            return
        sample = torch.cat(list(self.samples("initial statistics")))
        for name, sae in self.saes.items():
            target = sample[:, self.target_columns[name]]
            initialise_from_data_(sae, sample[:, self.columns[name]], target=target)

    def samples(self, purpose: str) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Raw activations from a stream that serves this purpose alone."""
        for x in sample_batches(
            self.source,
            purpose=purpose,
            n_samples=self.config.preparation_samples,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        ):
            refuse_non_finite_batch(x, step=self.step, last_good=self.guard.last_good)
            yield x

    def advance_(self) -> dict[str, StepResult]:
        """One batch through every SAE."""
        batch = next(self.stream)
        for reason, count in batch.excluded.items():
            self.excluded[reason] = self.excluded.get(reason, 0) + count
        on_device: dict[torch.device, Tensor] = {}
        results = {}
        for name, learner in self.learners.items():
            device = learner.sae.W_dec.device
            if device not in on_device:
                on_device[device] = batch.activations.to(device, torch.float32)
                if self.guard.delay_on(device) == 0:
                    refuse_non_finite_batch(on_device[device], step=self.step + 1, last_good=self.guard.last_good)
            x = on_device[device][:, self.columns[name]]
            watch = partial(self.guard.watch, name, x, step=self.step + 1)
            target = on_device[device][:, self.target_columns[name]]
            terms_of = None
            if self.objective is not None:
                terms_of = partial(self.objective.terms, batch=batch, site=self.rebuilt[name])
            results[name] = learner.step(x, self.step, before_update=watch, target=target, terms_of=terms_of)
        self.step += 1
        return results

    def calibrate_(self) -> None:
        """Makes the SAEs ready for use as they are, once it is certain that all steps so far were finite."""
        self.guard.settle()
        for name, sae in self.saes.items():
            device, columns = sae.W_dec.device, self.columns[name]
            sae.calibrate_(x[:, columns].to(device) for x in self.samples("calibration"))

    def save(self, checkpoints: CheckpointKeeper) -> str:
        """Keeps the run as it stands; the saved SAEs are calibrated, so that each of them can be used."""
        self.calibrate_()
        snapshot = TrainingSnapshot(
            step=self.step,
            setup=self.setup,
            stream=self.stream.state_dict(),
            weights={name: sae.state_dict() for name, sae in self.saes.items()},
            learners={name: learner.state_dict() for name, learner in self.learners.items()},
        )
        self.guard.last_good = str(checkpoints.save(snapshot, self.saes))
        return self.guard.last_good

    def restore_(self, snapshot: TrainingSnapshot) -> None:
        """Continues where the snapshot was taken; another setup is refused with its differences."""
        refuse_other_setup(snapshot.setup, self.setup)
        self.step = snapshot.step
        self.stream.load_state_dict(snapshot.stream)
        for name, sae in self.saes.items():
            sae.load_state_dict(snapshot.weights[name])
            self.learners[name].load_state_dict(snapshot.learners[name])
