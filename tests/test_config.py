"""Configs: strict about names and types, the same bytes for the same values."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from sae_toolkit import LearningConfig, RevivalConfig, TopKSAE, TrainConfig
from sae_toolkit.config import from_json, override, to_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    name: str = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    inner: Inner = Inner()
    flag: bool = False
    limit: float | None = None
    steps: int | None = 3
    kind: Literal["x", "y"] = "x"
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    names: tuple[str, ...] | None = None
    level: Literal[1, 2, "all"] = 1


FULL = Outer(
    count=4,
    inner=Inner(rate=1e-3, name="é"),
    flag=True,
    limit=2.0,
    steps=None,
    kind="y",
    sizes=(),
    pair=(3, 4.5),
    names=("p", "q"),
)
TRAIN = TrainConfig(n_samples=7, learning=LearningConfig(clip_norm=None, target_l0=3.0))


@pytest.mark.parametrize("config", [Outer(count=1), FULL, TRAIN, TopKSAE.Config(d_in=3, d_sae=4, k=2)], ids=repr)
def test_round_trip_through_json_text(config: Any) -> None:
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_equal_configs_are_equal_bytes_whatever_the_order_given() -> None:
    one, other = Outer(count=1, flag=True, kind="y"), from_json(Outer, {"kind": "y", "flag": True, "count": 1})
    assert json.dumps(to_json(one)) == json.dumps(to_json(other))


def test_fields_are_written_in_their_order() -> None:
    assert list(to_json(FULL)) == [
        "count",
        "inner",
        "flag",
        "limit",
        "steps",
        "kind",
        "sizes",
        "pair",
        "names",
        "level",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1, "cuont": 2}, r"'cuont'.*Did you mean count\?"),
        ({"count": 1, "inner": {"rat": 1.0}}, r"'inner\.rat'.*Did you mean inner\.rate\?"),
        ({}, r"no value given for count"),
        ({"count": "1"}, r"count: '1' given, but int is needed"),
        ({"count": 1.5}, r"count: 1\.5 given, but int"),
        ({"count": True}, r"count: True given, but int"),
        ({"count": None}, r"count: None given"),
        ({"count": 1, "flag": 1}, r"flag: 1 given, but bool"),
        ({"count": 1, "kind": "z"}, r"kind: 'z' given, but one of 'x', 'y'"),
        ({"count": 1, "sizes": [1, "2"]}, r"sizes\[1\]: '2' given, but int"),
        ({"count": 1, "sizes": 3}, r"sizes: 3 given"),
        ({"count": 1, "pair": [1]}, r"pair: \[1\] given"),
        ({"count": 1, "inner": 3}, r"inner: 3 given, but Inner"),
        ({"count": 1, "inner": {"rate": True}}, r"inner\.rate: True given, but float"),
        ({"count": 1, "limit": "none"}, r"limit: 'none' given"),
    ],
)
def test_a_wrong_name_or_type_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Outer, values)


def test_a_whole_number_is_a_float() -> None:
    config = from_json(Outer, {"count": 1, "limit": 2})
    assert type(config.limit) is float


@pytest.mark.parametrize(
    ("dotted", "text", "expected"),
    [
        ("count", "7", Outer(count=7)),
        ("count", "-7", Outer(count=-7)),
        ("inner.rate", "1e-3", Outer(count=1, inner=Inner(rate=1e-3))),
        ("inner.rate", "2", Outer(count=1, inner=Inner(rate=2.0))),
        ("inner.name", "3", Outer(count=1, inner=Inner(name="3"))),
        ("inner.name", "none", Outer(count=1, inner=Inner(name="none"))),
        ("flag", "true", Outer(count=1, flag=True)),
        ("flag", "False", Outer(count=1, flag=False)),
        ("limit", "none", Outer(count=1, limit=None)),
        ("limit", "0.5", Outer(count=1, limit=0.5)),
        ("steps", "None", Outer(count=1, steps=None)),
        ("steps", "5", Outer(count=1, steps=5)),
        ("kind", "y", Outer(count=1, kind="y")),
        ("sizes", "4,5,6", Outer(count=1, sizes=(4, 5, 6))),
        ("sizes", "4", Outer(count=1, sizes=(4,))),
        ("sizes", "", Outer(count=1, sizes=())),
        ("pair", "7,8", Outer(count=1, pair=(7, 8.0))),
        ("names", "u,v", Outer(count=1, names=("u", "v"))),
        ("names", "none", Outer(count=1, names=None)),
        ("level", "2", Outer(count=1, level=2)),
        ("level", "all", Outer(count=1, level="all")),
    ],
)
def test_overrides_by_dotted_name(dotted: str, text: str, expected: Outer) -> None:
    assert override(Outer(count=1), {dotted: text}) == expected


def test_a_pair_takes_each_part_by_its_own_type() -> None:
    assert override(Outer(count=1), {"pair": "7,8.5"}).pair == (7, 8.5)


def test_several_overrides_act_together_and_the_config_given_stays() -> None:
    config = Outer(count=1)
    changed = override(config, {"inner.rate": "1", "inner.name": "b", "count": "2"})
    assert changed == Outer(count=2, inner=Inner(rate=1.0, name="b"))
    assert config == Outer(count=1)


@pytest.mark.parametrize(
    ("dotted", "text", "message"),
    [
        ("cuont", "1", r"'cuont'.*Did you mean count\?"),
        ("inner.rat", "1", r"'inner\.rat'.*Did you mean inner\.rate\?"),
        ("iner.rate", "1", r"'iner\.rate'.*Did you mean inner\.rate\?"),
        ("count.more", "1", r"count is a single value"),
        ("count", "many", r"count: 'many' given, but int"),
        ("count", "1.5", r"count: '1\.5' given, but int"),
        ("flag", "yes", r"flag: 'yes' given, but bool"),
        ("inner", "1", r"inner: '1' given, but Inner"),
        ("sizes", "1,x", r"sizes\[1\]: 'x' given"),
        ("kind", "z", r"one of 'x', 'y'"),
        ("", "1", r"unknown field ''"),
    ],
)
def test_a_wrong_override_is_refused_by_name(dotted: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(Outer(count=1), {dotted: text})


def test_an_override_passes_the_checks_of_the_config() -> None:
    with pytest.raises(ValueError, match="learning_rate=-1"):
        override(TRAIN, {"learning.learning_rate": "-1"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"beta1": 1.0}, "beta1=1.0"),
        ({"beta2": -0.1}, "beta2=-0.1"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"decay_fraction": 1.1}, "decay_fraction=1.1"),
        ({"sparsity_warmup_fraction": -0.1}, "sparsity_warmup_fraction=-0.1"),
        ({"clip_norm": 0.0}, "clip_norm=0.0"),
        ({"target_l0": -2.0}, "target_l0=-2.0"),
        ({"target_l0": float("nan")}, "target_l0=nan"),
    ],
)
def test_impossible_learning_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearningConfig(**changes)


@pytest.mark.parametrize("field", ["dead_after_samples", "resample_every_samples"])
def test_impossible_windows_of_revival_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}=0"):
        RevivalConfig(**{field: 0})


@pytest.mark.parametrize("field", ["n_samples", "batch_size", "preparation_samples"])
def test_impossible_run_sizes_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}=0"):
        TrainConfig(**{"n_samples": 10, field: 0})
