"""How a run is followed: small callables for `train(..., log=...)`; a recipe or the command line picks them.

The only place of the package that writes to a terminal or to wandb; the library itself never does.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sae_toolkit.atomic_write import atomic_write_text

Log = Callable[[dict[str, Any]], None]


def log_to_all(*logs: Log) -> Log:
    """One logger that passes each record on to several."""

    def log(record: dict[str, Any]) -> None:
        for each in logs:
            each(record)

    return log


class JsonlLog:
    """Appends each record as one line of JSON, flushed at once, so that a killed run keeps what it logged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records_until(self, step: int) -> list[dict[str, Any]]:
        """What an earlier session logged up to a step; later lines (lost by going back to a checkpoint) are cut off."""
        if not self.path.exists():
            return []
        records = [
            parsed for line in self.path.read_text(encoding="utf-8").splitlines() if (parsed := whole_line(line))
        ]
        kept = [record for record in records if record["step"] <= step]
        atomic_write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        return kept


def whole_line(line: str) -> dict[str, Any] | None:
    """One logged record; None for a line that a killed process left unfinished."""
    try:
        return dict(json.loads(line))
    except json.JSONDecodeError:
        return None


class MemoryLog:
    """Keeps the records of this process, for curves drawn at the end of a run."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, record: dict[str, Any]) -> None:
        self.records.append(record)


class ProgressLog:
    """A progress bar with samples/s, time left and, per SAE, loss, L0 and dead share; a context manager.

    On a terminal it is one live line per run; elsewhere (a pipe, CI) it prints a line now and then.
    """

    def __init__(self, title: str = "training") -> None:
        from rich.console import Console  # noqa: PLC0415 - slow to import, needed by whoever watches alone
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        self.console = Console(stderr=True)
        self.title = title
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        self.progress = Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[status]}"), console=self.console, transient=True
        )
        self.task = self.progress.add_task(title, total=None, status="")
        self.last_printed = 0.0

    def __enter__(self) -> "ProgressLog":
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        status = progress_text(record)
        if self.console.is_terminal:
            self.progress.update(self.task, total=record["n_steps"], completed=record["step"], status=status)
        elif record["seconds"] - self.last_printed > 10 or record["step"] == record["n_steps"]:
            self.last_printed = record["seconds"]
            self.console.print(f"{self.title} {record['step']}/{record['n_steps']} steps  {status}", highlight=False)


def progress_text(record: Mapping[str, Any]) -> str:
    """One line: speed and time left, then the numbers of the first few SAEs."""
    parts = [f"{record['samples_per_second']:,.0f} samples/s", f"{record['seconds_left']:.0f} s left"]
    for name, numbers in list(record["saes"].items())[:3]:
        parts.append(f"{name}: loss {numbers['loss']:.4f} L0 {numbers['l0']:.1f} dead {numbers['dead']:.1%}")
    if len(record["saes"]) > 3:
        parts.append(f"+{len(record['saes']) - 3} more")
    return " | ".join(parts)


class WandbLog:
    """Sends each record to Weights & Biases, one metric per SAE and number."""

    def __init__(self, *, project: str, config: Mapping[str, Any] | None = None, **init: Any) -> None:
        try:
            import wandb  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ValueError("WandbLog needs wandb: pip install 'sae-toolkit[wandb]'.") from error
        self.run = wandb.init(project=project, config=dict(config or {}), **init)

    def __call__(self, record: dict[str, Any]) -> None:
        flat = {key: record[key] for key in ("samples", "seconds", "samples_per_second")}
        for group in ("saes", "probe"):
            for name, numbers in record.get(group, {}).items():
                flat |= {f"{name}/{key}": value for key, value in numbers.items()}
        self.run.log(flat, step=record["step"])

    def finish(self) -> None:
        """Ends the wandb run."""
        self.run.finish()


def say_on_stderr(text: str) -> None:
    """One line about what is going on."""
    from rich.console import Console  # noqa: PLC0415

    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
