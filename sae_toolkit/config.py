"""Frozen dataclass configs to and from JSON: strict about names and types, in field order, nested ones included."""

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

ConfigT = TypeVar("ConfigT")


def to_json(config: Any) -> dict[str, Any]:
    """A config as JSON-ready values, in the order of its fields (so that equal configs are equal bytes)."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: plain(value) for name, value in values.items()}


def plain(value: Any) -> Any:
    """One config value as JSON knows it."""
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def from_json(cls: type[ConfigT], values: Mapping[str, Any], *, path: str = "") -> ConfigT:
    """A config from JSON values. An unknown key or a value of the wrong type is a ValueError that names it."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(unknown_key(path + key, [path + name for name in known]))
    hints = get_type_hints(cls)
    converted = {key: convert(value, hints[key], path + key) for key, value in values.items()}
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{cls.__qualname__}: no value given for {', '.join(path + name for name in missing)}.")
    return cls(**converted)


def override(config: ConfigT, changes: Mapping[str, str]) -> ConfigT:
    """The config with fields changed by dotted names and text values, as a command line gives them."""
    for dotted, text in changes.items():
        config = override_one(config, dotted, dotted.split("."), text)
    return config


def field_values(rest: Sequence[str]) -> dict[str, str]:
    """`--a.b value` and `--a.b=value` as {"a.b": "value"}."""
    values: dict[str, str] = {}
    parts = list(rest)
    while parts:
        name, equals, value = parts.pop(0).partition("=")
        if not name.startswith("--"):
            raise ValueError(f"{name!r} is not understood; config fields are given as --name value.")
        if not equals:
            if not parts or parts[0].startswith("--"):
                raise ValueError(f"{name} needs a value.")
            value = parts.pop(0)
        values[name.removeprefix("--").replace("-", "_")] = value
    return values


def override_one(config: ConfigT, dotted: str, parts: Sequence[str], text: str) -> ConfigT:
    """One change; `dotted` is the whole name, for messages, and `parts` what is left of it at this level."""
    hints = get_type_hints(type(config))
    if parts[0] not in hints:
        raise ValueError(unknown_key(dotted, field_paths(config, dotted, len(dotted.split(".")) - len(parts))))
    current = getattr(config, parts[0])
    if len(parts) == 1:
        value = convert(parse_text(text, hints[parts[0]]), hints[parts[0]], dotted)
    elif dataclasses.is_dataclass(current):
        value = override_one(current, dotted, parts[1:], text)
    else:
        raise ValueError(f"{dotted}: {parts[0]} is a single value, it has no field {'.'.join(parts[1:])}.")
    return dataclasses.replace(config, **{parts[0]: value})  # type: ignore[type-var]


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every single value of a config by its dotted name, JSON-ready."""
    found: dict[str, Any] = {}
    for name, value in to_json(config).items():
        inner = getattr(config, name)
        found |= leaves(inner, f"{prefix}{name}.") if dataclasses.is_dataclass(inner) else {prefix + name: value}
    return found


def seed_of(config: Any) -> int:
    """The seed of a recipe's config: its field `seed`, or that of its `train` config."""
    holder = config if "seed" in get_type_hints(type(config)) else config.train
    return int(holder.seed)


def with_seed(config: ConfigT, seed: int) -> ConfigT:
    """The same config with another seed, wherever `seed_of` finds it."""
    return override(config, {"seed" if "seed" in get_type_hints(type(config)) else "train.seed": str(seed)})


def field_paths(config: Any, dotted: str, depth: int) -> list[str]:
    """Dotted names of all fields below `config`, with the part of `dotted` that leads here in front."""
    prefix = "".join(part + "." for part in dotted.split(".")[:depth])
    paths: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            paths += [f"{prefix}{field.name}.{inner}" for inner in field_paths(value, "", 0)]
        else:
            paths.append(prefix + field.name)
    return paths


def unknown_key(key: str, known: Sequence[str]) -> str:
    """The message for a name that is no field: the nearest valid one, then all of them."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"unknown field {key!r}.{hint} Known fields: {', '.join(sorted(known))}."


def parse_text(text: str, hint: Any) -> Any:
    """Text from a command line as the JSON value that a field of this type expects; other text stays text."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if types.NoneType in options and text.lower() == "none":
        return None
    for option in options:
        if get_origin(option) is tuple:
            kinds, parts = get_args(option), [part for part in text.split(",") if part]
            same = len(kinds) != len(parts) or kinds[-1] is Ellipsis
            return [parse_text(part, kinds[0 if same else i]) for i, part in enumerate(parts)]
        if get_origin(option) is Literal:
            return next((choice for choice in get_args(option) if str(choice) == text), text)
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        for number in (int, float):
            if option in (int, float) and (option is float or number is int):
                try:
                    return number(text)
                except ValueError:
                    continue
    return text


def convert(value: Any, hint: Any, path: str) -> Any:
    """A JSON value as a field of type `hint` holds it, or a ValueError that names the field and both types."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_json(hint, value, path=path + ".")
    if origin in (Union, types.UnionType):
        for option in args:
            try:
                return convert(value, option, path)
            except ValueError:
                continue
    elif origin is Literal:
        if value in args:
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        inner = args[:1] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
        if len(inner) == len(value):
            return tuple(
                convert(item, kind, f"{path}[{i}]") for i, (item, kind) in enumerate(zip(value, inner, strict=True))
            )
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ValueError(f"{path}: {value!r} given, but {describe_type(hint)} is needed.")


def describe_type(hint: Any) -> str:
    """A type as a person would write it."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(option) for option in get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
