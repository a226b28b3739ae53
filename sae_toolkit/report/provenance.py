"""How a result came about: versions, machine, commit, seed, data. Nothing that names a person or a folder."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGE_FOLDER = Path(__file__).resolve().parent.parent


def collect_provenance(source_description: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Called when a run starts; the command line is the caller's to add."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "toolkit": toolkit_version(),
        **git_state(PACKAGE_FOLDER),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "source": without_folders(source_description),
    }


def toolkit_version() -> str | None:
    """None where the toolkit runs without being installed."""
    try:
        return version("sae-toolkit")
    except PackageNotFoundError:
        return None


def git_state(package: Path) -> dict[str, Any]:
    """The commit the toolkit runs from, and whether its files differ from it; None outside a checkout of it.

    A virtual environment inside somebody else's repository is no checkout: the package must be tracked there.
    """
    tracked = git(package, "ls-files", "--error-unmatch", "__init__.py")
    commit = git(package, "rev-parse", "HEAD") if tracked else None
    changes = git(package, "status", "--porcelain", "--", ".") if commit else None
    return {"commit": commit, "uncommitted_changes": None if changes is None else changes != ""}


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no repository or nothing to tell."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def without_folders(value: Any) -> Any:
    """Absolute paths cut down to their last part: they name people and machines, and mean nothing elsewhere."""
    if isinstance(value, Mapping):
        return {str(key): without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if isinstance(value, str | Path) and Path(value).is_absolute():
        return Path(value).name
    return value
