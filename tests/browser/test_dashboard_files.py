"""What a dashboard reads and runs: its own files and script, and nothing that a text smuggles in.

Every window is asked in the end for errors, warnings and requests (`visit`); none may be there.
"""

from pathlib import Path
from typing import Any

import pytest
from dashboard_steps import at_latent, go, heading
from latent_records import HOSTILE, hand_record, hostile_record

from sae_toolkit.report import write_dashboard, write_dashboard_folder

pytestmark = pytest.mark.slow


def test_hostile_texts_are_shown_and_do_nothing(visit: Any, folder: Path) -> None:
    hostile = hostile_record()
    for page_file in (write_dashboard(hostile, folder / "h.html"), write_dashboard_folder(hostile, folder / "hostile")):
        page = visit(folder).open(page_file, "#latent=0")
        assert heading(page) == "Latent 0"
        assert page.locator("img").count() == 0
        assert "onerror=alert(1)" in page.locator(".tokens").text_content()
        assert page.locator("h1").text_content() == HOSTILE


def test_a_folder_loads_latents_as_they_are_opened(visit: Any, in_files: Path) -> None:
    visitor = visit(in_files.parent)
    page = visitor.open(in_files)
    names = lambda: [url.rsplit("/", 1)[1] for url in visitor.requests]  # noqa: E731
    assert names() == ["index.html"]
    page.get_by_role("link", name="120", exact=True).click()
    assert heading(page) == "Latent 120"
    assert page.locator(".examples li").count() == 5
    assert names() == ["index.html", "002.js"]
    page.keyboard.press("j")
    at_latent(page, 121)
    assert names() == ["index.html", "002.js"]
    go(page, "latent=49")
    assert heading(page) == "Latent 49"
    assert names() == ["index.html", "002.js", "000.js"]


def test_one_file_and_a_folder_show_the_same(visit: Any, large: Path, in_files: Path) -> None:
    texts = []
    for page_file in (large, in_files):
        page = visit(page_file.parent).open(page_file, "#latent=121")
        assert heading(page) == "Latent 121"
        texts.append(page.locator("#latent-view").inner_text())
    assert texts[0] == texts[1]
    assert len(texts[0]) > 1000


def test_a_missing_file_is_named_and_tried_again(visit: Any, folder: Path) -> None:
    index = write_dashboard_folder(hand_record(), folder / "torn", latents_per_file=1)
    part = index.parent / "latents/001.js"
    part.rename(folder / "kept.js")
    visitor = visit(folder)
    page = visitor.open(index, "#latent=2")
    assert "latents/001.js could not be read" in page.get_by_role("alert").text_content()
    assert [error for error in visitor.errors if "ERR_FILE_NOT_FOUND" not in error] == []
    visitor.errors.clear()
    (folder / "kept.js").rename(part)
    page.keyboard.press("Escape")
    page.locator("#table").wait_for()
    page.get_by_role("link", name="2", exact=True).click()
    assert heading(page) == "Latent 2"


def test_a_policy_stops_what_is_not_its_script(visit: Any, small: Path) -> None:
    """The page itself is as strict as it says: an inline handler and a request are refused."""
    visitor = visit(small.parent)
    page = visitor.open(small)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    assert page.evaluate("fetch('small.html').then(() => 'read', () => 'refused')") == "refused"
    assert page.title() != "1"
    assert visitor.errors, "nothing was refused"
    visitor.errors.clear()
