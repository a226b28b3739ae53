"""The plan of one run as a table, and a refusal that names the largest part where the machine cannot hold it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sae_toolkit.training.run import TrainConfig

KEPT_CHECKPOINTS = 2
"""What `RunFolder.training` keeps unless a recipe says otherwise; while one more is written there are three."""

NAMES = {"cpu": "memory", "cuda": "GPU memory"}
"""What a device is called in the table."""

SHRINK = {
    "model weights": "choose a smaller model, or dtype bfloat16",
    "shuffle buffer": "lower the source's shuffle_buffer",
    "text": "lower the text's window_tokens",
    "source": "let the source hold less",
    "SAEs": "lower d_sae, or train fewer SAEs at a time",
    "step": "lower train.batch_size, or d_sae",
    "evaluation": "lower eval_samples or d_sae",
    "checkpoints": "lower d_sae, or give an output folder on a larger disk",
}
"""What to do about each part of a run."""


class WillNotFitError(ValueError):
    """A run that the machine cannot hold; the message names the largest part and what to shrink."""


@dataclass(frozen=True)
class Row:
    """One part of what a run holds."""

    what: str
    """As the table names it."""
    bytes: int
    part: str = ""
    """The key of `SHRINK` it belongs to; nothing for what cannot be shrunk."""
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is predicted to take."""

    recipe: str
    train: TrainConfig
    rows: tuple[Row, ...]
    """What the peaks consist of."""
    peaks: Mapping[str, int]
    """Predicted most bytes in memory by device, of the whole process."""
    available: Mapping[str, int]
    """Bytes that this process could have, by device."""
    checkpoint: int
    """Bytes of one checkpoint."""
    cache_per_sample: int | None
    """Bytes on disk of a cached sample, in float32; None where the source cannot be cached."""
    free_disk: int | None
    """Bytes free where the output goes; None where that is not known yet."""
    seconds: float
    """Predicted for one training, without checkpoints, evaluation and report."""
    seconds_per_step: float
    seconds_per_batch_read: float

    def refusal(self) -> str | None:
        """Why the run will not fit, or None where it will."""
        for device, peak in self.peaks.items():
            if peak > self.available[device]:
                return will_not_fit(self.recipe, self.rows, device, peak, self.available[device])
        disk = (KEPT_CHECKPOINTS + 1) * self.checkpoint
        if self.free_disk is not None and disk > self.free_disk:
            return (
                f"plan: {self.recipe} will not fit: its checkpoints take {as_bytes(disk)} of disk, and "
                f"{as_bytes(self.free_disk)} are free. To shrink that, {SHRINK['checkpoints']}."
            )
        return None

    def lines(self) -> list[str]:
        """The table as text, 1 MB = 10^6 bytes."""
        config, step, read = self.train, self.seconds_per_step, self.seconds_per_batch_read
        table = [
            ("samples (tokens)", f"{config.n_samples:,}"),
            ("steps", f"{config.n_steps:,} of {config.batch_size:,} samples"),
            *((f"{NAMES[row.device]}: {row.what}", as_bytes(row.bytes)) for row in self.rows),
            *((f"predicted peak of {NAMES[device]}", as_bytes(peak)) for device, peak in self.peaks.items()),
            *((f"available {NAMES[device]}", as_bytes(room)) for device, room in self.available.items()),
            ("disk: one checkpoint", f"{as_bytes(self.checkpoint)}, up to {KEPT_CHECKPOINTS + 1} of them at a time"),
        ]
        if self.free_disk is not None:
            table.append(("disk: free", as_bytes(self.free_disk)))
        if self.cache_per_sample is not None:
            table.append(("disk: a cache in float32", f"{as_bytes(self.cache_per_sample * 10**6)} per million samples"))
        table += [
            ("time of one step", f"{step * 1e3:.3g} ms of training + {read * 1e3:.3g} ms of reading activations"),
            ("predicted time of training", as_time(self.seconds)),
        ]
        width = max(len(name) for name, _ in table)
        return [
            f"plan of {self.recipe}",
            *(f"  {name:<{width}}  {value}" for name, value in table),
            "The time is that of one training, without checkpoints, scoring, controls and report; a recipe that trains",
            "over several seeds takes it once per seed.",
        ]


def refuse_if_sure(recipe: str, rows: Iterable[Row], process: int, available: Mapping[str, int]) -> None:
    """Raises WillNotFitError when parts that are sure to come, beside what the process has, leave a device too full."""
    rows = [*rows, Row("the process as it is", process)]
    for device, room in available.items():
        needed = sum(row.bytes for row in rows if row.device == device)
        if needed > room:
            raise WillNotFitError(will_not_fit(recipe, rows, device, needed, room, at_least=True))


def will_not_fit(
    recipe: str, rows: Iterable[Row], device: str, needed: int, available: int, *, at_least: bool = False
) -> str:
    """The message: both numbers, the largest part that can be shrunk, and how."""
    largest = max((row for row in rows if row.device == device and row.part), key=lambda row: row.bytes)
    return (
        f"plan: {recipe} will not fit: {'at least ' if at_least else 'about '}{as_bytes(needed)} of {NAMES[device]} "
        f"are needed, and {as_bytes(available)} are available. The largest part is {largest.what} "
        f"({as_bytes(largest.bytes)}): {SHRINK[largest.part]}."
    )


def as_bytes(n: int) -> str:
    """Three digits and a unit, in powers of ten."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.{0 if n >= 100 * size else 1 if n >= 10 * size else 2}f} {unit}"
    return f"{n} bytes"


def as_time(seconds: float) -> str:
    """Hours, minutes or seconds, whichever is readable."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
