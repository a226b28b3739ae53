"""Refusing the saved state of another stream."""

from collections.abc import Mapping
from typing import Any


def check_identity(
    what: str, identity: Mapping[str, Any], state: Mapping[str, Any], *, position: str | tuple[str, ...]
) -> None:
    """A state may be loaded only into a stream of the same thing; `position` names the counts that may differ."""
    counts = (position,) if isinstance(position, str) else position
    expected = {*identity, *counts}
    if set(state) != expected:
        raise ValueError(f"{what}: a state with keys {sorted(state)} given, but {sorted(expected)} are needed.")
    for key, value in identity.items():
        if state[key] != value:
            raise ValueError(
                f"{what}: a state of {key}={state[key]!r} given to a stream of {key}={value!r}. Open the stream that "
                "was saved, or start a new one."
            )
    for name in counts:
        if isinstance(state[name], bool) or not isinstance(state[name], int) or state[name] < 0:
            raise ValueError(f"{what}: {name}={state[name]!r} given, but it must be a count from 0.")
