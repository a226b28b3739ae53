"""Predicting a run in three looks, each only if the one before left room.

What configs say before a model is loaded; the SAEs' sizes, without building them; a few real steps. Memory counts the
whole process, as the operating system does.
"""

import dataclasses
import gc
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sae_toolkit.activations.cache_files import stored_bytes
from sae_toolkit.activations.memory import WeighsBeforeLoading
from sae_toolkit.activations.shuffle import GroupReader
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.plan import memory
from sae_toolkit.plan.evaluation import EvaluationMemory, buffered_at_most, evaluation_memory
from sae_toolkit.plan.plan import SHRINK, Plan, Row, refuse_if_sure
from sae_toolkit.plan.probe import ProbeResult, probe_training
from sae_toolkit.plan.sizes import SAESize, sizes_of
from sae_toolkit.recipe import Recipe
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.saes.selection import rows_at_once
from sae_toolkit.training.run import TrainConfig

FLOAT = 4
"""Bytes of a float32."""


def plan_run(recipe: Recipe, config: Any, folder: Path, *, output: Path | None = None) -> Plan:
    """The plan of a recipe's run. What it builds on the way is thrown away; files it needs are made in `folder`.

    Raises WillNotFitError before a model is loaded or an SAE is built where it is sure by then that the run cannot
    fit; a plan that turns out not to fit says so in `refusal()`. `output` is where the checkpoints would go.
    """
    recipe.refuse_without_saes("plan")
    process, available = memory.resident_bytes(), {"cpu": memory.available_bytes("cpu")}
    weights = sum(heavy.weight_bytes() for heavy in heavy_configs(config))
    refuse_if_sure(recipe.name, [Row("model weights", weights, "model weights")], process, available)
    source: ActivationSource = recipe.module.make_source(config, RunFolder(folder))
    built = memory.resident_bytes()
    sizes = sizes_of(lambda: recipe.module.make_saes(config, source))
    sites = sites_of(sizes, source)
    sure = [*sae_rows(sizes), *dense_rows(sizes, config.train), *part_rows(source, held=False)]
    if any(row.device == "cuda" for row in (*sure, *part_rows(source, held=True))):
        available["cuda"] = memory.available_bytes("cuda")
    refuse_if_sure(recipe.name, sure, built, available)
    saes = recipe.module.make_saes(config, source)
    probe = probe_training(saes, source, config.train, sites)
    scoring = scoring_of(recipe, config, source, sizes, sites)
    del saes
    gc.collect()
    peaks = predicted_peaks(source, config.train, probe, scoring)
    before = [Row("process before anything is built", process), *held_rows(source, grown=built - process)]
    return Plan(
        recipe=recipe.name,
        train=config.train,
        rows=(
            *before,
            *sae_rows(sizes),
            *temporaries([*before, *sae_rows(sizes)], probe),
            *part_rows(source, held=False),
            *scoring_rows(probe, scoring),
        ),
        peaks=peaks,
        available=available,
        checkpoint=probe.state_bytes,
        cache_per_sample=stored_bytes(source.d_in, "float32") if isinstance(source, GroupReader) else None,
        free_disk=None if output is None else free_disk(output),
        seconds=training_seconds(config.train, probe),
        seconds_per_step=probe.seconds_per_step,
        seconds_per_batch_read=probe.seconds_per_sample_read * config.train.batch_size,
    )


def heavy_configs(config: Any) -> Iterator[WeighsBeforeLoading]:
    """Every config in this one, however deep, that knows the size of what it stands for."""
    if isinstance(config, WeighsBeforeLoading):
        yield config
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield from heavy_configs(getattr(config, field.name))


def sites_of(sizes: Mapping[str, SAESize], source: ActivationSource) -> dict[str, str]:
    """Which site each SAE reads: where a source has several, an SAE is named after its own."""
    if len(source.sites) == 1:
        return {}
    for name in sizes:
        if name not in source.sites:
            raise ValueError(
                f"plan: the source reads {', '.join(source.sites)}, but make_saes names an SAE {name!r}. Where a "
                "source has several sites, name each SAE after the one it reads."
            )
    return {name: name for name in sizes}


def sae_rows(sizes: Mapping[str, SAESize]) -> list[Row]:
    """Weights, gradients and moments of all SAEs on one device."""
    rows = []
    for device in dict.fromkeys(size.device for size in sizes.values()):
        here = [size for size in sizes.values() if size.device == device]
        number = f"{len(here)} SAE{'s' * (len(here) > 1)}"
        n_parameters = sum(size.n_parameters for size in here)
        weights, gradients = sum(size.weights for size in here), sum(size.gradients for size in here)
        rows += [
            Row(f"weights of {number}, {n_parameters:,} parameters", weights, "SAEs", device),
            Row(f"gradients of {number}", gradients, "SAEs", device),
            Row(f"optimizer moments of {number}", sum(size.moments for size in here), "SAEs", device),
        ]
    return rows


def dense_rows(sizes: Mapping[str, SAESize], config: TrainConfig) -> list[Row]:
    """What every variant computes in one piece: pre-activations of the widest SAE, a whole batch or a chunk of it."""
    return [
        Row("pre-activations", min(config.batch_size, rows_at_once(device, d_sae)) * d_sae * FLOAT, "step", device)
        for device, d_sae in sorted((size.device, size.d_sae) for size in sizes.values())[-1:]
    ]


def part_rows(source: ActivationSource, *, held: bool) -> list[Row]:
    """What the source says it holds, or (not held) will hold when it is read further."""
    return [
        Row(part.name, part.bytes, part.name if part.name in SHRINK else "source", part.device)
        for part in source.memory_bytes()
        if part.held == held
    ]


def held_rows(source: ActivationSource, *, grown: int) -> list[Row]:
    """What the source holds, and what building it took beyond what it says."""
    rows = part_rows(source, held=True)
    rest = grown - sum(row.bytes for row in rows if row.device == "cpu")
    return [*rows, Row("source, beside that" if rows else "source", max(0, rest), "source")]


def temporaries(rows: list[Row], probe: ProbeResult) -> list[Row]:
    """What the probe took at most beyond these rows, by device: tensors of one step, of reading, of preparing."""
    return [
        Row(
            "one step's temporaries (or those of reading or preparing)",
            max(0, peak - sum(row.bytes for row in rows if row.device == device)),
            "step",
            device,
        )
        for device, peak in probe.peaks.items()
    ]


def scoring_of(
    recipe: Recipe, config: Any, source: ActivationSource, sizes: Mapping[str, SAESize], sites: Mapping[str, str]
) -> EvaluationMemory:
    """What scoring takes on top of what training leaves; nothing for a recipe without `eval_samples`."""
    if "eval_samples" not in {field.name for field in dataclasses.fields(config)}:
        return EvaluationMemory(0, 0)
    return evaluation_memory(source, sizes, sites, n_samples=config.eval_samples, leave_out=recipe.leave_out)


def scoring_rows(probe: ProbeResult, scoring: EvaluationMemory) -> list[Row]:
    """The process once training has ended, and what scoring adds to that: the other moment that may be the peak."""
    return [
        Row("after training, what the process keeps", probe.resident_after),
        Row("after training, scoring and controls", scoring.main, "evaluation"),
    ]


def predicted_peaks(
    source: ActivationSource, config: TrainConfig, probe: ProbeResult, scoring: EvaluationMemory
) -> dict[str, int]:
    """The larger of two moments, training and scoring, by device.

    Training: the probe, with the shuffle buffers full of the train stream and of a stream for calibration beside it.
    """
    to_come = part_rows(source, held=False)
    later = {device: sum(row.bytes for row in to_come if row.device == device) for device in probe.peaks}
    training = probe.peaks["cpu"] + later["cpu"] + buffered_at_most(source, config.preparation_samples)
    peaks = {"cpu": max(training, probe.resident_after + scoring.main)}
    if "cuda" in probe.peaks:
        peaks["cuda"] = max(probe.peaks["cuda"] + later["cuda"], scoring.cuda)
    return peaks


def training_seconds(config: TrainConfig, probe: ProbeResult) -> float:
    """All steps and their reading; initial statistics, and the calibrations of the last step."""
    read = probe.seconds_per_sample_read
    steps = config.n_steps * (probe.seconds_per_step + config.batch_size * read)
    return steps + probe.seconds_of_preparation + 3 * config.preparation_samples * read


def free_disk(output: Path) -> int:
    """Bytes free where a folder is or would be made."""
    place = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    return shutil.disk_usage(place).free
