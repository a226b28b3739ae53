"""Runs on a language model, each in a process of its own: repeated, killed and resumed, live and from a cache."""

import subprocess
import sys
from pathlib import Path

import pytest

from sae_toolkit.activations.cache import build_cache
from sae_toolkit.activations.example_language import write_example_model, write_example_text

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from transformer_run import make_source  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("language")
    write_example_model(made / "model")
    write_example_text(made, n_documents=120)
    build_cache(make_source(str(made / "model"), str(made / "text.jsonl")), made / "cache")
    return made


def start(folder: Path, run: str, *, cache: str = "live", resume: bool = False, stop: int = 0) -> tuple[int, str]:
    words = [folder / "model", folder / "text.jsonl", folder / run, cache, "resume" if resume else "new", stop]
    command = [sys.executable, TESTS / "transformer_run.py", *words]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> str:
    status, hashes = start(folder, "uninterrupted")
    assert status == 0
    assert len(hashes) == 2 * 64 + 1
    return hashes


@pytest.mark.slow
def test_the_same_config_twice_gives_the_same_weights(folder: Path, uninterrupted: str) -> None:
    assert start(folder, "again") == (0, uninterrupted)


@pytest.mark.slow
def test_cached_and_live_runs_give_the_same_weights(folder: Path, uninterrupted: str) -> None:
    assert start(folder, "cached", cache=str(folder / "cache")) == (0, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["live", "cache"])
def test_killed_and_resumed_gives_the_same_weights(folder: Path, uninterrupted: str, kind: str) -> None:
    cache = "live" if kind == "live" else str(folder / "cache")
    run = f"killed_{kind}"
    assert start(folder, run, cache=cache, stop=4)[0] == -9
    assert start(folder, run, cache=cache, resume=True) == (0, uninterrupted)
