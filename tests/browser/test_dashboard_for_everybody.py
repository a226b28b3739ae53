"""The dashboard for every reader: in light and dark, on a phone, by ear.

Every window is asked in the end for errors, warnings and requests (`visit`); none may be there.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard_steps import go
from latent_records import capitals, hand_record

from sae_toolkit.analysis import Example, Neighbour
from sae_toolkit.report import write_dashboard

pytestmark = pytest.mark.slow
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def test_dark_follows_the_system_and_the_button_is_remembered(visit: Any, small: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(247, 247, 244)", "rgb(20, 23, 26)"
    assert visit(small.parent, color_scheme="light").open(small).evaluate(ground) == light
    page = visit(small.parent, color_scheme="dark").open(small)
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_has_a_name_an_order_and_contrast(visit: Any, small: Path, theme: str) -> None:
    visitor = visit(small.parent, color_scheme=theme)
    page = visitor.open(small, "#latent=0")
    page.keyboard.press("v")
    for state in ("latent=0&q=", "latent=2", "latent=3", ""):
        go(page, state)
        for summary in page.locator("summary:visible").all():
            summary.click()
        assert visitor.asked("nameless") == []
        assert visitor.asked("structure") == []
        assert visitor.asked("faint") == []
    page.keyboard.press("?")
    assert visitor.asked("nameless") == []
    assert visitor.asked("faint") == []


def test_the_probes_find_what_is_planted(visit: Any, small: Path) -> None:
    visitor = visit(small.parent)
    page = visitor.open(small)
    planted = '<button></button><p id="main" style="color:#aaa">faint</p><h5>h</h5><div style="width:3000px">wide</div>'
    page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", planted)
    assert visitor.asked("nameless") == ["<button></button>"]
    assert visitor.asked("structure") == ["id main", "h5 after h2"]
    assert len(visitor.asked("faint")) == 1
    assert len(visitor.asked("tooWide")) == 1


def test_a_phone_shows_it_without_scrolling_sideways(visit: Any, large: Path) -> None:
    visitor = visit(large.parent, **PHONE)
    page = visitor.open(large)
    assert page.evaluate("innerWidth") == 360
    assert visitor.asked("tooWide") == []
    go(page, "latent=0")
    assert visitor.asked("tooWide") == []
    page.get_by_role("button", name="Show values").click()
    assert visitor.asked("tooWide") == []


def test_long_words_and_lists_do_not_widen_a_phone(visit: Any, folder: Path) -> None:
    word = "x" * 300
    example = Example(
        band="top", tokens=(word,), activations=(1.0,), peak=0, document=1, position=1, truth=((word, 1.0),)
    )
    latent = replace(
        capitals(),
        examples=(example,),
        related={"promoted tokens": (Neighbour(index=1, label=word, value=1.0),)},
        feature=replace(capitals().feature, name=word),
        scores={word: capitals().scores["entropy"]},
    )
    page_file = write_dashboard(replace(hand_record(), title=word, latents=(latent,)), folder / "long.html")
    visitor = visit(folder, **PHONE)
    page = visitor.open(page_file)
    assert visitor.asked("tooWide") == []
    go(page, "latent=0")
    assert visitor.asked("tooWide") == []
