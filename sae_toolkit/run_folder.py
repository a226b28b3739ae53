"""Where one run of a recipe lives on disk: its log, its checkpoints, and whether it continues an earlier one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_toolkit.checkpoint import Checkpoints, saved_states
from sae_toolkit.loggers import JsonlLog, Log, MemoryLog, log_to_all
from sae_toolkit.training.snapshot import TrainingSnapshot


@dataclass(frozen=True)
class RunFolder:
    """Handed to a recipe's `main`: what `train` needs besides SAEs, source and config."""

    folder: Path
    resume: bool = False
    """Continue from the newest checkpoint in the folder, where there is one."""
    watchers: tuple[Log, ...] = ()
    """Loggers beside the log file, such as a progress bar."""
    report_folder: Path | None = None
    """Where the report of the whole will be; None: here."""
    memory: MemoryLog = field(default_factory=MemoryLog)

    def __post_init__(self) -> None:
        if not self.resume and saved_states(self.checkpoint_folder):
            raise ValueError(
                f"{self.folder} already holds a run. Add --resume to continue it, or give another --output folder."
            )

    @property
    def checkpoint_folder(self) -> Path:
        return self.folder / "checkpoints"

    def part(self, name: str) -> "RunFolder":
        """A run inside this one, for recipes that train more than once (over seeds, over worlds)."""
        report_folder = self.report_folder or self.folder
        return RunFolder(self.folder / name, resume=self.resume, watchers=self.watchers, report_folder=report_folder)

    def training(self, *, checkpoint_every_samples: int = 500_000, keep: int = 2) -> dict[str, Any]:
        """Keyword arguments for `train`: log, checkpoints and the state to resume from."""
        checkpoints = Checkpoints(self.checkpoint_folder, every_samples=checkpoint_every_samples, keep=keep)
        resume_from: TrainingSnapshot | None = checkpoints.latest() if self.resume else None
        log_file = JsonlLog(self.folder / "log.jsonl")
        for record in log_file.records_until(resume_from.step if resume_from else 0):
            self.memory(record)
        return {
            "log": log_to_all(log_file, self.memory, *self.watchers),
            "checkpoints": checkpoints,
            "resume_from": resume_from,
        }

    def sae_path(self, name: str) -> Path:
        """The folder of a trained SAE in the newest checkpoint."""
        return saved_states(self.checkpoint_folder)[-1] / "saes" / name

    def relative(self, path: Path) -> Path:
        """A path inside the run as the report names it."""
        return path.relative_to(self.report_folder or self.folder)
