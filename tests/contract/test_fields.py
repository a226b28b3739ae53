"""No field is ever unread: changing any field of any config changes the trained weights or the loss, or is refused."""

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from toy import VARIANTS, ToySource, small_config

from sae_toolkit import AbstractSAE, LearningConfig, RevivalConfig, TrainConfig, train, weights_sha256
from sae_toolkit.saes.crosscoder import CrosscodingConfig
from sae_toolkit.saes.rank_selection import SelectingConfig

# Runs of a few steps cannot reach their target L0, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:SAE .* target_l0=.* reached")

# Values at which every field acts within a few steps.
REVIVAL = RevivalConfig(dead_after_samples=40)
LEARNING = LearningConfig(warmup_steps=3, clip_norm=0.5, revival=REVIVAL, sparsity_warmup_fraction=0.5)
CONFIG = TrainConfig(n_samples=240, batch_size=30, learning=LEARNING, preparation_samples=120)

BY_HAND: dict[str, list[Any]] = {
    f"{variant.__name__}.Config.initial_k": [8] for variant in VARIANTS if issubclass(variant.Config, SelectingConfig)
} | {
    f"{variant.__name__}.Config.site_widths": [(4, 4)]
    for variant in VARIANTS
    if issubclass(variant.Config, CrosscodingConfig)
}
"""Other values of a field, as "Config.field": only for a field that `candidates` cannot change by its type."""


def candidates(hint: Any, value: Any) -> list[Any]:
    """A few other values that a field of this type could hold."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if dataclasses.is_dataclass(value):
        first = dataclasses.fields(value)[0].name
        field_hint = get_type_hints(type(value))[first]
        return [dataclasses.replace(value, **{first: other}) for other in candidates(field_hint, getattr(value, first))]
    found: list[Any] = []
    if get_origin(hint) is Literal:
        found = [option for option in get_args(hint) if option != value]
    elif isinstance(value, tuple):
        found = [value[:-1], (*value, *value[-1:])]
    elif value is None:
        found = [60] if int in options else [1.5] if float in options else []
    elif isinstance(value, bool):
        found = [not value]
    elif isinstance(value, int):
        found = [value + 1, 2 * value, 1]
    elif isinstance(value, float):
        found = [value / 2, 0.25]
    return found


def outcome(variant: type[AbstractSAE], sae_config: Any, config: TrainConfig) -> tuple[Any, ...]:
    """Everything that a field may act on: weights, losses, and whether it is accepted at all."""
    records: list[Any] = []
    try:
        sae = variant(sae_config)
        sae.W_enc.data[:, ::2] *= 0.01  # half the latents start too weak to be selected, so that revival has work
        train(sae, ToySource(), config, log=lambda record: records.append(record["saes"]["sae"]), log_every_steps=1)
    except ValueError as error:
        return ("refused", str(error))
    return (weights_sha256(sae), [{**r, "dead": 0} for r in records])


def outcomes(learning: LearningConfig) -> tuple[Any, ...]:
    """Of every variant that accepts it."""
    config = dataclasses.replace(CONFIG, learning=learning)
    found = [outcome(variant, small_config(variant), config) for variant in VARIANTS]
    return ("trained", [each for each in found if each[0] != "refused"])


def refuse_unread(name: str, hint: Any, value: Any, run: Any) -> None:
    """Fails unless some other value of the field gives another outcome; a refusal counts when it names the field."""
    others = BY_HAND.get(name) or candidates(hint, value)
    assert others, f"{name}: {hint} cannot be changed by its type; add other values of it to BY_HAND in {__file__}"
    field, usual = name.rsplit(".", 1)[-1], run(value)
    for other in others:
        found = run(other)
        if found[0] == "refused" and field not in found[1]:
            continue
        if found != usual:
            return
    pytest.fail(f"{name}: {value!r} and each of {others!r} train the same weights, so the field is not read")


SAE_FIELDS = [
    pytest.param(variant, field.name, id=f"{variant.__name__}.{field.name}")
    for variant in VARIANTS
    for field in dataclasses.fields(variant.Config)
]


@pytest.mark.parametrize(("variant", "field"), SAE_FIELDS)
def test_every_sae_config_field_is_read(variant: type[AbstractSAE], field: str) -> None:
    config = small_config(variant)

    def run(value: Any) -> tuple[Any, ...]:
        try:
            changed = dataclasses.replace(config, **{field: value})
        except ValueError as error:
            return ("refused", str(error))
        return outcome(variant, changed, CONFIG)

    hint = get_type_hints(variant.Config)[field]
    refuse_unread(f"{variant.__name__}.Config.{field}", hint, getattr(config, field), run)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(LearningConfig)])
def test_every_learning_field_is_read(field: str) -> None:
    """Some fields concern only some variants, so all of them run and one must notice."""

    def run(value: Any) -> tuple[Any, ...]:
        return outcomes(dataclasses.replace(LEARNING, **{field: value}))

    refuse_unread(f"LearningConfig.{field}", get_type_hints(LearningConfig)[field], getattr(LEARNING, field), run)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RevivalConfig)])
def test_every_revival_field_is_read(field: str) -> None:
    def run(value: Any) -> tuple[Any, ...]:
        return outcomes(dataclasses.replace(LEARNING, revival=dataclasses.replace(REVIVAL, **{field: value})))

    refuse_unread(f"RevivalConfig.{field}", get_type_hints(RevivalConfig)[field], getattr(REVIVAL, field), run)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TrainConfig)])
def test_every_train_field_is_read(field: str) -> None:
    variant = VARIANTS[0]

    def run(value: Any) -> tuple[Any, ...]:
        return outcome(variant, small_config(variant), dataclasses.replace(CONFIG, **{field: value}))

    refuse_unread(f"TrainConfig.{field}", get_type_hints(TrainConfig)[field], getattr(CONFIG, field), run)


def test_an_unread_field_is_noticed() -> None:
    """The planted violation: a run that ignores its value."""
    with pytest.raises(pytest.fail.Exception, match=r"Toy\.field.*not read"):
        refuse_unread("Toy.field", int, 3, lambda value: ("same",))


def test_a_field_of_unknown_type_asks_for_a_value_by_hand() -> None:
    with pytest.raises(AssertionError, match="BY_HAND"):
        refuse_unread("Toy.field", str, "text", lambda value: ("same",))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_seed_argument_is_read(variant: type[AbstractSAE]) -> None:
    first, second = (variant(small_config(variant), seed=seed) for seed in (0, 1))
    assert not torch.equal(first.W_dec, second.W_dec)
