"""A real browser for the tests of pages; they are skipped, and say why, where there is none."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chromium import chromium
from latent_records import hand_record, large_record

from sae_toolkit.analysis import DictionaryRecord
from sae_toolkit.report import write_dashboard, write_dashboard_folder

PROBES = (Path(__file__).parent / "page_probes.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    opened = chromium()
    try:
        browser = opened.__enter__()
    except RuntimeError as error:
        pytest.skip(str(error))
    yield browser
    opened.__exit__(None, None, None)


class Visitor:
    """One window, and everything that went wrong in it."""

    def __init__(self, browser: Any, folder: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.home = folder.resolve().as_uri()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))

    def open(self, path: Path, state: str = "") -> Any:
        """Goes to a file, with the state behind the #."""
        self.page.goto(f"{path.resolve().as_uri()}{state}")
        self.page.locator("#status:not(:empty), .facts, [role=alert]").first.wait_for()
        return self.page

    def asked(self, probe: str) -> list[str]:
        """The offenders that one of the probes finds."""
        found: list[str] = self.page.evaluate(f"() => ({PROBES}).{probe}()")
        return found

    def strangers(self) -> list[str]:
        """Requests for anything but files of the dashboard."""
        return [url for url in self.requests if not url.startswith(f"{self.home}/")]


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visitor]]:
    """Opens windows, and asks of each in the end: no error, no warning, no request but for the dashboard's files."""
    visitors: list[Visitor] = []

    def new(folder: Path, **context: Any) -> Visitor:
        visitors.append(Visitor(browser, folder, **context))
        return visitors[-1]

    yield new
    for visitor in visitors:
        visitor.context.close()
        assert visitor.errors == []
        assert visitor.requests, "no request was seen, so none was checked"
        assert visitor.strangers() == []


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def small(folder: Path) -> Path:
    return write_dashboard(hand_record(), folder / "small.html")


@pytest.fixture(scope="session")
def record() -> DictionaryRecord:
    return large_record(230, n_examples=5, n_tokens=16)


@pytest.fixture(scope="session")
def large(folder: Path, record: DictionaryRecord) -> Path:
    return write_dashboard(record, folder / "large.html")


@pytest.fixture(scope="session")
def in_files(folder: Path, record: DictionaryRecord) -> Path:
    return write_dashboard_folder(record, folder / "in_files", latents_per_file=50)
