"""Files that tell whether they are still what was written: JSON with its own hash, and stamps of other files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sealed(contents: Mapping[str, Any]) -> str:
    """JSON with its own SHA-256 as last entry: a changed digit in a config would otherwise load as another SAE."""
    seal = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    # No newline at the end: the closing brace is the last byte, so no truncated file parses.
    return json.dumps({**contents, "sha256": seal}, indent=1)


def read_sealed(path: Path, schema_version: int) -> dict[str, Any]:
    """A sealed JSON file, refused when it is missing, cut, changed or of another schema version."""
    try:
        text = path.read_bytes().decode("utf-8")
        contents = json.loads(text)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist, so {path.parent} is no checkpoint or cache of ours.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged (not complete JSON): {error}") from error
    found = contents.get("schema_version") if isinstance(contents, dict) else None
    if found != schema_version:
        raise ValueError(
            f"{path}: schema version {found!r} found, but this version of the toolkit reads {schema_version}. "
            f"Use the toolkit version that wrote it, or make it anew."
        )
    contents.pop("sha256", None)
    if sealed(contents) != text:
        raise ValueError(f"{path} is damaged: it was changed since it was written (its sha256 does not fit).")
    return dict(contents)


def checked_bytes(path: Path, stamp: Mapping[str, Any]) -> bytes:
    """A file's bytes, refused when they are not the ones that were written."""
    try:
        contents = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing from {path.parent}.") from error
    if file_stamp(contents) != dict(stamp):
        raise ValueError(f"{path} is damaged: {len(contents)} bytes found, {stamp['bytes']} written, or changed since.")
    return contents


def file_stamp(contents: bytes) -> dict[str, Any]:
    """What `checked_bytes` compares a file with."""
    return {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
