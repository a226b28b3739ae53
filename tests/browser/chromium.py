"""Debian's Chromium without a window, driven over pipes: no port is opened, and nothing can be fetched."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of its own, closed in the end; a RuntimeError that says what is missing."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - for the tests of pages alone
    except ImportError as error:
        raise RuntimeError("playwright is not installed: pip install 'sae-toolkit[dev]'") from error
    path = shutil.which("chromium")
    if path is None:
        raise RuntimeError("there is no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        yield browser
        browser.close()
