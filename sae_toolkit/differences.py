"""Where two descriptions differ, leaf by leaf, and what of a description is no more than a label."""

from collections.abc import Mapping
from typing import Any

LABELS = ("name", "path")
"""Keys of what something is called or where it lies: the same thing may be called otherwise elsewhere."""


def differences(saved: Any, asked: Any, path: str = "") -> list[str]:
    """Every leaf at which two JSON-like values differ, as 'path: saved x, asked y'."""
    if isinstance(saved, Mapping) and isinstance(asked, Mapping):
        keys = dict.fromkeys([*saved, *asked])
        pairs = [(f"{path}.{key}".lstrip("."), saved.get(key), asked.get(key)) for key in keys]
    elif isinstance(saved, list) and isinstance(asked, list) and len(saved) == len(asked):
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(saved, asked, strict=True))]
    else:
        return [] if saved == asked else [f"{path}: saved {saved!r}, asked {asked!r}"]
    return [line for name, a, b in pairs for line in differences(a, b, name)]


def without_labels(value: Any) -> Any:
    """A JSON-like value without the texts that are labels, at any depth."""
    if isinstance(value, Mapping):
        kept = {key: inner for key, inner in value.items() if not (key in LABELS and isinstance(inner, str))}
        return {key: without_labels(inner) for key, inner in kept.items()}
    return [without_labels(inner) for inner in value] if isinstance(value, list) else value
