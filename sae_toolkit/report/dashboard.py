"""The dashboard of an SAE: every latent with its examples, in one HTML file, or in a folder that loads them as needed.

Neither needs a server. The single file may fetch nothing, and runs its own script alone (told by its hash). Browsers
forbid a page from a disk to read the files beside it, but not to run them: the folder's latents are therefore scripts,
and its policy lets the page's own script add scripts ('strict-dynamic'). So whoever can change files in that folder can
change what the page does; the texts of tokens and features cannot, in either form.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sae_toolkit.analysis.latent_record import DictionaryRecord
from sae_toolkit.atomic_write import atomic_folder, atomic_write_text
from sae_toolkit.report.dashboard_data import details, overview, script_json
from sae_toolkit.report.plain_json import plain_json
from sae_toolkit.report.provenance import without_folders
from sae_toolkit.report.self_contained import content_policy, packaged, render
from sae_toolkit.report.style import css_variables
from sae_toolkit.report.svg import short
from sae_toolkit.report.tables import settings

SCRIPTS = ("theme.js", "dashboard_text.js", "dashboard_list.js", "dashboard_latent.js", "dashboard.js")
LATENTS_PER_FILE = 50
INDEX, PARTS = "index.html", "latents"
MANY_LATENTS = 1000
"""From here on a folder opens sooner than one file."""
LONGEST = 160
"""Characters that a value of the provenance shows."""


def write_dashboard(record: DictionaryRecord, path: str | Path) -> Path:
    """One HTML file with everything in it; 200 latents with 20 examples of 40 tokens take about 2 MB."""
    refuse_empty(record)
    parts = [script_json(details(record.latents))]
    atomic_write_text(Path(path), page(record, parts, len(record.latents), content_policy(script())))
    return Path(path)


def write_dashboard_folder(
    record: DictionaryRecord, folder: str | Path, *, latents_per_file: int = LATENTS_PER_FILE
) -> Path:
    """A folder whose index.html (returned) loads `latents_per_file` latents at a time; for thousands of latents.

    It appears whole or not at all and replaces an older dashboard, but no folder that holds anything else: ValueError.
    """
    refuse_empty(record)
    if latents_per_file < 1:
        raise ValueError(
            f"write_dashboard_folder: latents_per_file={latents_per_file} asked, but a file needs at least 1 latent."
        )
    target = Path(folder)
    others = [path.name for path in target.iterdir() if path.name not in (INDEX, PARTS)] if target.exists() else []
    if others:
        raise ValueError(
            f"write_dashboard_folder: {target} holds {others[0]!r}, which is no part of a dashboard. Name a new folder."
        )
    with atomic_folder(target) as new:
        (new / PARTS).mkdir()
        for name, text in latent_files(record, latents_per_file):
            (new / PARTS / name).write_text(text, encoding="utf-8")
        text = page(record, [], latents_per_file, content_policy(script(), "'strict-dynamic'"))
        (new / INDEX).write_text(text, encoding="utf-8")
    return target / INDEX


def latent_files(record: DictionaryRecord, latents_per_file: int) -> Iterator[tuple[str, str]]:
    """Name and text of each file of latents; a file hands its part to the page that asked for it."""
    for part, start in enumerate(range(0, len(record.latents), latents_per_file)):
        content = script_json(details(record.latents[start : start + latents_per_file]))
        yield f"{part:03d}.js", f"saeDashboardPart({part},{content});\n"


def refuse_empty(record: DictionaryRecord) -> None:
    """A ValueError where there is nothing to show."""
    if not record.latents:
        raise ValueError(f"Dashboard of {record.title}: the record holds no latent. Describe at least one.")


def script() -> str:
    """The page's script: its files share one scope, which nothing else sees."""
    theme, *parts = (packaged(name) for name in SCRIPTS)
    return theme + '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def page(record: DictionaryRecord, parts: list[str], latents_per_part: int, policy: str) -> str:
    """The HTML; `parts` are the latents' details as far as they are inside the page."""
    from markupsafe import Markup  # noqa: PLC0415  (slow import)

    provenance = plain_json(without_folders(record.provenance), "provenance")
    content: dict[str, Any] = {
        "record": record,
        "policy": policy,
        "css": Markup(css_variables() + packaged("page.css") + packaged("dashboard.css")),
        "script": Markup(script()),
        "overview": Markup(script_json({**overview(record), "latentsPerPart": latents_per_part})),
        "parts": [Markup(part) for part in parts],
        "summary": summary(record),
        "excluded": ", ".join(f"{reason} {n:,}" for reason, n in record.excluded.items() if n),
        "provenance": [(name, short(value, LONGEST)) for name, value in settings(provenance)],
    }
    return render("dashboard.html.jinja", content)


def summary(record: DictionaryRecord) -> str:
    """How many latents are shown, of how many, on what."""
    shown, of = f"{len(record.latents):,}", f"{record.d_sae:,}"
    which = f"All {of} latents" if len(record.latents) == record.d_sae else f"{shown} of {of} latents"
    return f"{which}, described on {record.n_samples:,} held-out samples."
