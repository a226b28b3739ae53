"""What is kept: one folder per SAE (safetensors + JSON, no pickle), and one per saved state of a run.

    step_000001954/                 a saved run
      saes/NAME/sae.json            variant, config, provenance, size and SHA-256 of the weights
      saes/NAME/weights.safetensors
      learners/NAME.safetensors     optimizer moments, dead-latent counters, sparsity control
      run.json                      step, setup, stream position, size and SHA-256 of every file above

A folder appears whole or not at all; a file that was cut or changed is refused by name.
"""

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from sae_toolkit import config as configs
from sae_toolkit.atomic_write import UNFINISHED, atomic_folder
from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.sealed_files import checked_bytes, file_stamp, read_sealed, sealed
from sae_toolkit.training.snapshot import CheckpointKeeper, TrainingSnapshot

SCHEMA_VERSION = 1
SAE_FILE, WEIGHTS_FILE, RUN_FILE = "sae.json", "weights.safetensors", "run.json"


def save(sae: AbstractSAE, folder: str | Path, *, provenance: Mapping[str, Any] | None = None) -> Path:
    """Writes one SAE as a folder that `load` reads; `provenance` is any JSON-ready account of its training."""
    target = Path(folder)
    refuse_foreign_folder(target)
    with atomic_folder(target) as temporary:
        write_sae(sae, temporary, provenance or {})
    return target


def refuse_foreign_folder(target: Path) -> None:
    """Saving replaces the whole folder, so one that holds anything but a saved SAE is refused."""
    if not target.exists():
        return
    others = (
        sorted({path.name for path in target.iterdir()} - {SAE_FILE, WEIGHTS_FILE}) if target.is_dir() else ["a file"]
    )
    if others:
        raise ValueError(
            f"save: {target} already exists and is more than a saved SAE ({', '.join(others[:3])}); saving would "
            f"delete it. Choose a new folder, for example {target / 'sae'}."
        )


def load(path_or_hub_id: str | Path) -> AbstractSAE:
    """An SAE in eval mode from its folder, from a run that holds exactly one, or from a Hugging Face repository.

    A hub id is `owner/repository` or `owner/repository/folder/inside`. Anything incomplete, changed or unknown is a
    ValueError that names it.
    """
    return read_sae(sae_folder(path_or_hub_id))


def read_provenance(path_or_hub_id: str | Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a saved SAE, found as by `load`, and the account of its training that was saved with it."""
    folder = sae_folder(path_or_hub_id)
    return folder, dict(read_sealed(folder / SAE_FILE, SCHEMA_VERSION).get("provenance", {}))


def sae_folder(path_or_hub_id: str | Path) -> Path:
    """The folder that holds one SAE's two files."""
    folder = Path(path_or_hub_id)
    if not str(path_or_hub_id) or not os.path.exists(folder):  # unlike Path.exists, False for an impossible path
        folder = hub_folder(str(path_or_hub_id))
    return folder if (folder / SAE_FILE).exists() else only_sae_below(folder)


def write_sae(sae: AbstractSAE, folder: Path, provenance: Mapping[str, Any]) -> None:
    """The two files of one SAE into an existing folder."""
    weights = to_bytes(sae.state_dict())
    (folder / WEIGHTS_FILE).write_bytes(weights)
    description = {
        "schema_version": SCHEMA_VERSION,
        "variant": type(sae).__name__,
        "module": type(sae).__module__,
        "config": configs.to_json(sae.config),
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
        "written_by": {"sae_toolkit": version("sae-toolkit"), "torch": torch.__version__},
        "provenance": dict(provenance),
    }
    (folder / SAE_FILE).write_text(sealed(description), encoding="utf-8")


def read_sae(folder: Path) -> AbstractSAE:
    """One SAE from its folder, every byte of its weights checked."""
    description = read_sealed(folder / SAE_FILE, SCHEMA_VERSION)
    for key in ("variant", "module", "config", "weights"):
        if key not in description:
            raise ValueError(f"{folder / SAE_FILE}: {key!r} is missing, so this is no complete SAE description.")
    variant = AbstractSAE.variants.get(description["variant"])
    if variant is None:
        raise ValueError(
            f"{folder}: the variant {description['variant']!r} is not known here. Known: "
            f"{', '.join(sorted(AbstractSAE.variants))}. Import {description['module']!r}, which defined it, first."
        )
    sae = variant(configs.from_json(variant.Config, description["config"]))
    tensors = tensors_from_bytes(checked_bytes(folder / WEIGHTS_FILE, description["weights"]))
    try:
        sae.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS_FILE}: its tensors do not fit the config beside it: {error}") from error
    return sae.eval()


def hub_folder(hub_id: str) -> Path:
    """The local copy of a Hugging Face repository (or of a folder inside it)."""
    owner, _, rest = hub_id.partition("/")
    repository, _, inside = rest.partition("/")
    if not re.fullmatch(r"[\w.-]+", owner) or not re.fullmatch(r"[\w.-]+", repository) or owner in (".", ".."):
        raise ValueError(f"load: {hub_id!r} is neither an existing folder nor a hub id of the form 'owner/repository'.")
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise ValueError(
            f"load: there is no folder {hub_id!r}, and reading it from the hub needs: pip install 'sae-toolkit[lm]'."
        ) from error
    try:
        downloaded = snapshot_download(f"{owner}/{repository}", allow_patterns=[f"{inside}/*"] if inside else None)
    except Exception as error:
        raise ValueError(f"load: no folder {hub_id!r} here, and the hub did not give it: {error}") from error
    return Path(downloaded) / inside


def only_sae_below(folder: Path) -> Path:
    """The one SAE in a saved run, or in the newest complete state of a folder of them."""
    found = saes_below(folder)
    if len(found) != 1:
        listing = "".join(f"\n  {path}" for path in found) or " none"
        raise ValueError(f"load: {folder} holds {len(found)} SAEs, name one of them:{listing}")
    return found[0]


def saes_below(folder: Path) -> list[Path]:
    """The folders of every SAE in a saved run, or in the newest complete state of a folder of them."""
    if (folder / SAE_FILE).exists():
        return [folder]
    if (folder / "checkpoints").is_dir():
        folder = folder / "checkpoints"
    states = saved_states(folder)
    below = (states[-1] if states else folder).rglob(SAE_FILE)
    return sorted(path.parent for path in below if UNFINISHED not in str(path))


def saved_states(folder: Path) -> list[Path]:
    """The complete-looking saved runs in a folder, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step_*/{RUN_FILE}"))


@dataclass(frozen=True)
class Checkpoints(CheckpointKeeper):
    """Keeps the states of one run in a folder, the newest `keep` of them."""

    folder: Path
    every_samples: int | None = None
    """Save each time so many more samples have been seen; None: only at the end and when interrupted."""
    keep: int = 2
    """How many states stay on disk."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))  # a text path is welcome
        if self.keep < 1:
            raise ValueError(f"Checkpoints: keep={self.keep} given, but at least one state must stay.")
        if self.every_samples is not None and self.every_samples < 1:
            raise ValueError(f"Checkpoints: every_samples={self.every_samples} given; use a positive number or None.")

    def is_due(self, *, samples_before: int, samples_after: int) -> bool:
        return self.every_samples is not None and (
            samples_after // self.every_samples > samples_before // self.every_samples
        )

    def save(self, snapshot: TrainingSnapshot, saes: Mapping[str, AbstractSAE]) -> Path:
        target = self.folder / f"step_{snapshot.step:09d}"
        with atomic_folder(target) as temporary:
            for name, sae in saes.items():
                (temporary / "saes" / name).mkdir(parents=True)
                write_sae(sae, temporary / "saes" / name, {"setup": snapshot.setup, "step": snapshot.step})
            (temporary / "learners").mkdir()
            for name, state in snapshot.learners.items():
                (temporary / "learners" / f"{name}.safetensors").write_bytes(to_bytes(state))
            write_run_file(snapshot, temporary)
        self.prune_up_to(target)
        return target

    def prune_up_to(self, newest: Path) -> None:
        """Deletes what is older than the newest `keep`, and what killed processes left unfinished.

        Later steps than the one just saved belong to an earlier run in the same folder; they neither count nor go.
        """
        states = [state for state in saved_states(self.folder) if state.name <= newest.name]
        for old in states[: -self.keep]:
            remove_folder(old)
        for unfinished in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def latest(self) -> TrainingSnapshot | None:
        """The newest state that is complete; damaged ones are skipped with a warning that says what is wrong."""
        for folder in reversed(saved_states(self.folder)):
            try:
                return read_snapshot(folder)
            except ValueError as error:
                warnings.warn(f"skipping a damaged checkpoint: {error}", stacklevel=2)
        return None


def write_run_file(snapshot: TrainingSnapshot, folder: Path) -> None:
    """run.json: position and setup, and what every other file of the folder must be."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {
        "schema_version": SCHEMA_VERSION,
        "step": snapshot.step,
        "setup": snapshot.setup,
        "stream": snapshot.stream,
        "files": {path.relative_to(folder).as_posix(): file_stamp(path.read_bytes()) for path in files},
    }
    (folder / RUN_FILE).write_text(sealed(contents), encoding="utf-8")


def read_snapshot(folder: Path) -> TrainingSnapshot:
    """A saved run, every file checked before anything of it is used."""
    run = read_sealed(folder / RUN_FILE, SCHEMA_VERSION)
    contents = {name: checked_bytes(folder / name, stamp) for name, stamp in run["files"].items()}
    names = list(run["setup"]["saes"])
    return TrainingSnapshot(
        step=run["step"],
        setup=run["setup"],
        stream=run["stream"],
        weights={name: tensors_from_bytes(contents[f"saes/{name}/{WEIGHTS_FILE}"]) for name in names},
        learners={name: tensors_from_bytes(contents[f"learners/{name}.safetensors"]) for name in names},
    )


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors bytes; copies, because safetensors refuses strided and shared memory."""
    return tensors_to_bytes({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def remove_folder(folder: Path) -> None:
    """Deletes a saved state; its run.json first, so that a half-deleted state is no longer taken for a whole one."""
    (folder / RUN_FILE).unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
