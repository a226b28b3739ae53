"""What every HTML page is made with: packaged files, escaped templates, and a policy under which nothing is fetched."""

import base64
import hashlib
from importlib.resources import files
from typing import Any


def packaged(name: str) -> str:
    """A text file that lies beside this module, also inside a wheel."""
    return (files("sae_toolkit.report") / name).read_text(encoding="utf-8")


def render(template: str, content: dict[str, Any]) -> str:
    """A packaged template, filled: all text is escaped but what is `Markup`, and a missing name is an error."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  (slow import)

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(packaged(template)).render(**content)


def content_policy(script: str, *further_scripts: str) -> str:
    """Nothing may be fetched, and no script runs but our own: whatever a name or a figure smuggles in stays inert.

    `further_scripts` are what else of the policy's language may run, for a page in several files.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = " ".join([f"'sha256-{digest}'", *further_scripts])
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
