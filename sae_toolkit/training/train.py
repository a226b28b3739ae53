"""The one training loop: any number of SAEs of any variant share one pass over any source of activations."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from sae_toolkit.activations.named_sites import sites_read, targets_read
from sae_toolkit.activations.source import ActivationSource, Site
from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.training.interruption import SignalCatcher, TrainingInterrupted
from sae_toolkit.training.learning import LearningConfig
from sae_toolkit.training.objective import Objective
from sae_toolkit.training.run import TrainConfig, TrainingRun
from sae_toolkit.training.snapshot import CheckpointKeeper, TrainingSnapshot
from sae_toolkit.training.watch import Log, Probe, Watch


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves behind."""

    saes: Mapping[str, AbstractSAE]
    n_steps: int
    """Optimizer updates per SAE, over all sessions of the run."""
    n_samples: int
    """Samples each SAE has seen, over all sessions of the run."""
    seconds: float
    """Wall time of this session."""
    excluded: Mapping[str, int] = field(default_factory=dict)
    """Samples the source left out in this session, by reason."""


def train(
    saes: AbstractSAE | Mapping[str, AbstractSAE],
    source: ActivationSource,
    config: TrainConfig,
    *,
    learning: Mapping[str, LearningConfig] | None = None,
    sites: Mapping[str, Site] | None = None,
    targets: Mapping[str, Site] | None = None,
    objective: Objective | None = None,
    log: Log | None = None,
    log_every_steps: int = 100,
    probe: Probe | None = None,
    probe_every_steps: int = 500,
    checkpoints: CheckpointKeeper | None = None,
    resume_from: TrainingSnapshot | None = None,
) -> TrainResult:
    """Trains the SAEs in place and leaves them in eval mode, calibrated.

    For a source that reads several sites in one pass, `sites` says which of them each SAE reads (a crosscoder: several,
    as a tuple), and `targets` which one each transcoder predicts. `objective` minimises something else than each SAE's
    own loss, such as `EndToEnd`.

    `log` gets a record every `log_every_steps`; `probe` (for example an evaluation) is called on the SAEs in eval mode
    and its numbers join the record. Neither they nor `checkpoints` change a weight. SIGINT and SIGTERM end the run
    after the current step, with a checkpoint where one can be kept, by raising `TrainingInterrupted`.
    """
    named = {"sae": saes} if isinstance(saes, AbstractSAE) else dict(saes)
    read = sites_read(named, source, sites)
    predicted = targets_read(named, source, targets)
    refuse_unusable(named, source, learning or {}, read, predicted)
    run = TrainingRun(named, source, config, learning or {}, read, predicted, objective)
    watch = Watch(log, log_every_steps, probe, probe_every_steps)
    if resume_from is None:
        run.prepare_()
    else:
        run.restore_(resume_from)
    started = time.perf_counter()
    with SignalCatcher() as signals:
        while run.step < config.n_steps:
            results = run.advance_()
            watch.report(run, results)
            if signals.caught is not None and run.step < config.n_steps:
                raise TrainingInterrupted(signals.caught, run.save(checkpoints) if checkpoints else None)
            if checkpoints and checkpoints.is_due(
                samples_before=(run.step - 1) * config.batch_size, samples_after=run.step * config.batch_size
            ):
                run.save(checkpoints)
    run.calibrate_()
    for sae in named.values():
        sae.progress = 1.0
        sae.eval()
    if checkpoints:
        run.save(checkpoints)
    for name, learner in run.learners.items():  # said last: where warnings are errors, the run is already kept
        for complaint in (learner.control.shortfall(), learner.dead.shortfall()):
            if complaint:
                warnings.warn(f"SAE {name!r}: {complaint}", stacklevel=2)
    seconds = time.perf_counter() - started
    return TrainResult(named, run.step, run.step * config.batch_size, seconds, run.excluded)


def refuse_unusable(
    saes: Mapping[str, AbstractSAE],
    source: ActivationSource,
    learning: Mapping[str, LearningConfig],
    sites: Mapping[str, Site],
    targets: Mapping[str, Site],
) -> None:
    """What can be known to fail before anything is computed."""
    if not saes:
        raise ValueError("train: no SAE given; pass one, or a mapping of names to SAEs.")
    for name in learning:
        if name not in saes:
            raise ValueError(f"train: learning given for {name!r}, but the SAEs are {', '.join(saes)}.")
    for name, sae in saes.items():
        width = width_of(source, sites[name])
        if sae.d_in != width:
            raise ValueError(
                f"train: SAE {name!r} has d_in={sae.d_in}, but the source gives it activations of width {width}. "
                f"Build it with d_in={width}."
            )
        refuse_other_target(name, sae, source, sites[name], targets.get(name))
        if name != name.strip() or name in ("", ".", "..") or "/" in name:
            raise ValueError(f"train: {name!r} cannot name an SAE, because it becomes a folder name; use plain words.")


def refuse_other_target(name: str, sae: AbstractSAE, source: ActivationSource, site: Site, target: Site | None) -> None:
    """A target is for transcoders, which have a normaliser for it; they need one wherever there is a choice."""
    if target is not None and not sae.transcodes:
        raise ValueError(
            f"train: targets={{{name!r}: {target!r}}} given, but {type(sae).__name__} reconstructs what it reads. "
            "Leave it out, or train a transcoder."
        )
    if sae.transcodes and target is None and len(source.sites) > 1:
        raise ValueError(
            f"train: transcoder {name!r} reads {site!r}, but no target is given. Pass targets={{{name!r}: ...}}, one "
            f"of {', '.join(source.sites)}."
        )
    width = width_of(source, site if target is None else target)
    if sae.d_out != width:
        raise ValueError(
            f"train: transcoder {name!r} has d_out={sae.d_out}, but what it is to predict is {width} wide. Build it "
            f"with d_out={width}."
        )


def width_of(source: ActivationSource, site: Site) -> int:
    """Number of columns of one site, or of several."""
    names = (site,) if isinstance(site, str) else site
    return sum(source.sites[name] for name in names)
