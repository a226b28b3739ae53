"""Whatever a config or a log record holds, as plain JSON values: equal content gives equal bytes."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any


def plain_json(value: Any, where: str) -> Any:
    """Nested dicts, lists, strings, numbers, booleans and None; a number that is not finite becomes None.

    `where` names the value in the error that refuses anything else.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Real):
        return plain_number(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise ValueError(
        f"Report: {where} is a {type(value).__name__}, which JSON cannot hold. "
        f"Give a number, a string, a list, a dict or a dataclass of these."
    )


def plain_number(value: Real) -> int | float | None:
    """NumPy's numbers, too, as Python's; None for NaN and the infinities, which JSON has no word for."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isfinite(value) else None
