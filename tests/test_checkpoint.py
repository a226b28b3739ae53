"""Whole or not at all: what a saved run and a saved SAE do when files, disks and arguments misbehave."""

import errno
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToySource, small_config, toy_batch, working_sae

from sae_toolkit import (
    AbstractSAE,
    BatchTopKSAE,
    Checkpoints,
    ReluSAE,
    TopKSAE,
    TrainConfig,
    load,
    save,
    train,
    weights_sha256,
)
from sae_toolkit.checkpoint import sealed

CONFIG = TrainConfig(n_samples=64, batch_size=32, preparation_samples=64)


def run_folder(folder: Path, *names: str, keep: int = 2) -> Path:
    """A finished run of two steps with a state after each."""
    saes = {name: TopKSAE(small_config(TopKSAE)) for name in names or ("sae",)}
    train(saes, ToySource(), CONFIG, checkpoints=Checkpoints(folder, every_samples=32, keep=keep))
    return folder


def edit(folder: Path, **changes: Any) -> Path:
    """A validly sealed sae.json with other contents."""
    contents = json.loads((folder / "sae.json").read_text()) | changes
    contents.pop("sha256")
    (folder / "sae.json").write_text(sealed(contents))
    return folder


# ---- one SAE


def test_another_schema_version_names_both(tmp_path: Path) -> None:
    folder = edit(save(working_sae(TopKSAE), tmp_path / "a"), schema_version=99)
    with pytest.raises(ValueError, match=r"schema version 99 found.*reads 1"):
        load(folder)


def test_an_unknown_variant_lists_the_known_and_says_what_to_import(tmp_path: Path) -> None:
    folder = edit(save(working_sae(TopKSAE), tmp_path / "a"), variant="MySAE", module="my_notebook")
    with pytest.raises(ValueError, match=r"'MySAE' is not known here.*TopKSAE.*my_notebook"):
        load(folder)


def test_an_unknown_config_key_names_the_nearest(tmp_path: Path) -> None:
    folder = save(working_sae(TopKSAE), tmp_path / "a")
    config = json.loads((folder / "sae.json").read_text())["config"]
    edit(folder, config={**config, "normalizer": "none"})
    with pytest.raises(ValueError, match=r"normalizer.*Did you mean normaliser\?"):
        load(folder)


def test_a_config_that_does_not_fit_the_weights_is_refused(tmp_path: Path) -> None:
    folder = save(working_sae(TopKSAE), tmp_path / "a")
    config = json.loads((folder / "sae.json").read_text())["config"]
    edit(folder, config={**config, "d_sae": 17})
    with pytest.raises(ValueError, match="do not fit the config"):
        load(folder)


@pytest.mark.parametrize("missing", ["sae.json", "weights.safetensors"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    folder = save(working_sae(TopKSAE), tmp_path / "a")
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=r"holds 0 SAEs" if missing == "sae.json" else missing):
        load(folder)


def test_provenance_is_kept(tmp_path: Path) -> None:
    folder = save(working_sae(TopKSAE), tmp_path / "a", provenance={"note": "größer", "loss": float("nan")})
    assert json.loads((folder / "sae.json").read_text())["provenance"]["note"] == "größer"
    load(folder)


def test_saving_again_replaces_the_sae(tmp_path: Path) -> None:
    save(working_sae(TopKSAE), tmp_path / "a")
    second = working_sae(ReluSAE)
    assert weights_sha256(load(save(second, tmp_path / "a"))) == weights_sha256(second)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("what", ["a file", "a folder with other files"])
def test_saving_never_deletes_anything_but_a_saved_sae(what: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    precious = target if what == "a file" else target / "thesis.tex"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("years of work")
    with pytest.raises(ValueError, match="more than a saved SAE"):
        save(working_sae(TopKSAE), target)
    assert precious.read_text() == "years of work"


def test_saving_into_an_empty_folder_works(tmp_path: Path) -> None:
    sae = working_sae(TopKSAE)
    assert weights_sha256(load(save(sae, tmp_path))) == weights_sha256(sae)


def test_a_full_disk_leaves_the_old_sae_and_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = working_sae(TopKSAE)
    save(first, tmp_path / "a")

    def full(self: Path, *arguments: Any, **options: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for method in ("write_bytes", "write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, full)
            with pytest.raises(OSError, match="No space left"):
                save(working_sae(ReluSAE), tmp_path / "a")
        assert weights_sha256(load(tmp_path / "a")) == weights_sha256(first)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_refused_rename_leaves_the_old_sae_and_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = working_sae(TopKSAE)
    save(first, tmp_path / "a")
    rename = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if target.name == "a" and "replaced" not in self.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(PermissionError):
        save(working_sae(ReluSAE), tmp_path / "a")
    assert weights_sha256(load(tmp_path / "a")) == weights_sha256(first)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_no_write_permission_raises_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(PermissionError):
        save(working_sae(TopKSAE), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_no_pickle_is_written(tmp_path: Path) -> None:
    run_folder(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


# ---- saved runs


def test_keep_prunes_the_oldest(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, every_samples=32, keep=3)
    train(TopKSAE(small_config(TopKSAE)), ToySource(), TrainConfig(n_samples=320, batch_size=32), checkpoints=keeper)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:09d}" for step in (8, 9, 10)]


def test_a_new_run_in_an_old_folder_keeps_its_own_states(tmp_path: Path) -> None:
    """Pruning by step alone would delete the new run's first state right after writing it."""
    long = TrainConfig(n_samples=320, batch_size=32)
    train(TopKSAE(small_config(TopKSAE)), ToySource(), long, checkpoints=Checkpoints(tmp_path, keep=1))
    train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG, checkpoints=Checkpoints(tmp_path, keep=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000002", "step_000000010"]


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".unfinished-step_000000001-99999"
    save(working_sae(TopKSAE), leftover / "saes" / "sae")
    with pytest.raises(ValueError, match="holds 0 SAEs"):
        load(tmp_path)
    assert Checkpoints(tmp_path).latest() is None
    run_folder(tmp_path)
    assert not leftover.exists()


@pytest.mark.parametrize("changes", [{"keep": 0}, {"every_samples": 0}])
def test_impossible_cadences_are_refused(changes: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Checkpoints(tmp_path, **changes)


@pytest.mark.parametrize(
    ("every", "before", "after", "due"),
    [
        (100, 64, 96, False),
        (100, 96, 128, True),
        (32, 64, 96, True),
        (10, 0, 32, True),
        (None, 0, 10**9, False),
    ],
)
def test_due_when_a_multiple_is_crossed(every: int | None, before: int, after: int, due: bool, tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, every_samples=every).is_due(samples_before=before, samples_after=after) is due


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_state_is_always_skipped_with_a_warning(damage: str, tmp_path: Path) -> None:
    """Every file at about forty places, run.json at a few hundred; the state before it is used instead."""
    keeper = Checkpoints(run_folder(tmp_path))
    newest = tmp_path / "step_000000002"
    assert {path.name for path in files_of(newest)} == {
        "run.json",
        "sae.json",
        "weights.safetensors",
        "sae.safetensors",
    }
    for path in files_of(newest):
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // (300 if path.name == "run.json" else 40))):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(whole[:place] if damage == "cut" else bytes(changed))
            with pytest.warns(UserWarning, match="skipping a damaged checkpoint"):
                snapshot = keeper.latest()
            assert snapshot is not None
            assert snapshot.step == 1
        path.write_bytes(whole)
    snapshot = keeper.latest()
    assert snapshot is not None
    assert snapshot.step == 2


def test_a_state_without_run_json_does_not_count(tmp_path: Path) -> None:
    (run_folder(tmp_path) / "step_000000002" / "run.json").unlink()
    snapshot = Checkpoints(tmp_path).latest()
    assert snapshot is not None
    assert snapshot.step == 1


def test_a_full_disk_keeps_the_states_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(tmp_path)
    before = {path: path.read_bytes() for path in files_of(tmp_path)}

    def full(self: Path, *arguments: Any, **options: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        train(ReluSAE(small_config(ReluSAE)), ToySource(), CONFIG, checkpoints=Checkpoints(tmp_path, every_samples=32))
    assert {path: path.read_bytes() for path in files_of(tmp_path)} == before
    assert not list(tmp_path.glob(".unfinished*"))


# ---- load: runs, hub ids, nonsense


def test_a_run_with_one_sae_loads_its_newest_state(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "checkpoints")
    expected = weights_sha256(load(folder / "step_000000002" / "saes" / "sae"))
    for path in (tmp_path, folder, folder / "step_000000002", str(folder)):
        assert weights_sha256(load(path)) == expected


def test_a_run_with_several_saes_lists_them(tmp_path: Path) -> None:
    run_folder(tmp_path, "narrow", "wide")
    with pytest.raises(ValueError, match=r"(?s)holds 2 SAEs.*narrow.*wide"):
        load(tmp_path)


def test_a_saved_state_of_a_batch_topk_is_calibrated(tmp_path: Path) -> None:
    sae = BatchTopKSAE(small_config(BatchTopKSAE))
    train(sae, ToySource(), CONFIG, checkpoints=Checkpoints(tmp_path, every_samples=32))
    early = load(tmp_path / "step_000000001" / "saes" / "sae")
    assert early.encode(toy_batch(3)).isfinite().all()


class Hub(types.ModuleType):
    """Stands in for huggingface_hub: gives one folder, remembers what was asked."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__("huggingface_hub")
        self.folder = folder
        self.asked: list[tuple[str, Any]] = []

    def snapshot_download(self, repository: str, *, allow_patterns: list[str] | None = None) -> str:
        self.asked.append((repository, allow_patterns))
        if self.folder is None:
            raise OSError("404 Client Error")
        return str(self.folder)


@pytest.mark.parametrize(
    ("hub_id", "asked"),
    [
        ("someone/saes", ("someone/saes", None)),
        ("someone/saes/layer_3/wide", ("someone/saes", ["layer_3/wide/*"])),
    ],
)
def test_a_hub_id_is_downloaded(hub_id: str, asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = working_sae(TopKSAE)
    save(sae, tmp_path / "layer_3" / "wide")
    hub = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert weights_sha256(load(hub_id)) == weights_sha256(sae)
    assert hub.asked == [asked]


def test_a_hub_that_fails_is_a_value_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(None))
    with pytest.raises(ValueError, match=r"someone/saes.*404"):
        load("someone/saes")


def test_without_the_hub_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"sae-toolkit\[lm\]"):
        load("someone/saes")


@pytest.mark.parametrize(
    "nonsense",
    ["", "nowhere", "/no/such/folder", "../x", "a b/c", "https://huggingface.co/a/b", "\0", "x" * 5000, "a//b"],
)
def test_nonsense_is_neither_a_folder_nor_a_hub_id(nonsense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(None))
    with pytest.raises(ValueError, match="load:"):
        load(nonsense)


def test_a_file_or_an_empty_folder_holds_no_sae(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"pickle")
    for path in (tmp_path, tmp_path / "model.pt"):
        with pytest.raises(ValueError, match="holds 0 SAEs"):
            load(path)


# ---- the hash


def test_the_hash_sees_every_parameter_and_buffer() -> None:
    def changed(name: str) -> AbstractSAE:
        sae = working_sae(BatchTopKSAE)
        tensor = sae.state_dict()[name]
        tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)
        return sae

    names = list(working_sae(BatchTopKSAE).state_dict())
    assert (
        len({weights_sha256(changed(name)) for name in names} | {weights_sha256(working_sae(BatchTopKSAE))})
        == len(names) + 1
    )
