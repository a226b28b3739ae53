"""What every source owes, also one that is added later.

A source is found by itself; how a small one is built stands in its own test file: `tests/activations/test_<file>.py`
defines `small_source(folder)`.
"""

import importlib.util
import inspect
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_toolkit.activations as package
from sae_toolkit import ReluSAE, TrainConfig, evaluate, train
from sae_toolkit.activations import ActivationSource

TESTS = Path(__file__).parents[1] / "activations"


def shipped_sources() -> dict[str, type[ActivationSource]]:
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        for name, value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).items():
            if inspect.isclass(value) and issubclass(value, ActivationSource) and not inspect.isabstract(value):
                found[name] = value
    assert set(found) >= {"SuperpositionSource", "ArraySource"}, f"only {sorted(found)} were found"
    return found


SOURCES = shipped_sources()


def small_source(name: str, folder: Path) -> ActivationSource:
    stem = SOURCES[name].__module__.rpartition(".")[2]
    spec = importlib.util.spec_from_file_location(f"builder_of_{stem}", TESTS / f"test_{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built: ActivationSource = module.small_source(folder)
    assert type(built) is SOURCES[name]
    return built


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ActivationSource:
    return small_source(request.param, tmp_path)


def take(source: ActivationSource, split: Any, n: int = 3, seed: int = 0) -> list[torch.Tensor]:
    stream = source.stream(4, seed=seed, split=split)
    return [next(stream).activations for _ in range(n)]


def test_batches_have_the_announced_width_and_type(source: ActivationSource) -> None:
    for split in ("train", "eval"):
        assert all(x.shape == (4, source.d_in) and x.dtype == torch.float32 for x in take(source, split))


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(source: ActivationSource) -> None:
    first, again, other = take(source, "train"), take(source, "train"), take(source, "train", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_train_and_eval_share_no_sample(source: ActivationSource) -> None:
    train_rows = {tuple(row.tolist()) for x in take(source, "train", 20) for row in x}
    assert not any(tuple(row.tolist()) in train_rows for x in take(source, "eval") for row in x)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_restored_stream_goes_on_bit_for_bit(source: ActivationSource, split: Any) -> None:
    stream = source.stream(4, seed=0, split=split)
    next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = [next(stream).activations for _ in range(2)]
    restored = source.stream(4, seed=0, split=split)
    restored.load_state_dict(state)
    assert all(torch.equal(next(restored).activations, x) for x in expected)


def test_the_state_of_the_other_split_is_refused(source: ActivationSource) -> None:
    state = source.stream(4, seed=0, split="train").state_dict()
    with pytest.raises(ValueError, match="split"):
        source.stream(4, seed=0, split="eval").load_state_dict(state)


def test_the_description_is_stable_json(source: ActivationSource) -> None:
    described = json.dumps(source.describe())
    take(source, "train")
    assert json.dumps(source.describe()) == described


def test_an_sae_trains_and_is_scored_on_it(source: ActivationSource) -> None:
    sae = ReluSAE(ReluSAE.Config(d_in=source.d_in, d_sae=8))
    train(sae, source, TrainConfig(n_samples=40, batch_size=4, preparation_samples=40))
    scores = evaluate(sae, source, n_samples=8)["sae"]
    assert scores["l0"].n == 8


def test_held_out_rows_hold_the_samples_of_the_eval_stream_in_its_order(source: ActivationSource) -> None:
    rows = source.held_out_rows()
    if rows is None:
        pytest.skip("its samples are no running text")
    first = next(rows)
    kept = first.activations[first.kept]
    assert torch.equal(kept[:4], take(source, "eval", 1)[0])
    assert first.activations.shape == (*first.token_ids.shape, source.d_in)
    assert sum(first.excluded.values()) == int((~first.kept).sum())
    assert set(source.neuron_hooks) <= set(source.sites)
