"""The page of a latent in a real browser: everything of its record is there, and says what it is.

Every window is asked in the end for errors, warnings and requests (`visit`); none may be there.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard_steps import at_latent, heading
from latent_records import capitals, hand_record

from sae_toolkit.analysis import Neighbour
from sae_toolkit.report import write_dashboard

pytestmark = pytest.mark.slow


def test_everything_of_a_latent_is_there(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=0")
    assert heading(page) == "Latent 0"
    assert page.locator(".panel h3").all_text_contents() == [
        "Examples",
        "Activations",
        "Matched true feature",
        "Scores",
        "Promoted tokens",
        "Suppressed tokens",
        "Nearest by decoder",
        "Correlated neurons",
    ]
    assert page.locator(".panel h4").all_text_contents() == ["Strongest", "Activations in 50-75 % of those that fire"]
    assert page.locator(".where").first.text_content() == "4.00, document 7, position 41"
    assert page.locator(".examples li").first.locator(".chip.own").text_content() == "city 1.50"
    assert page.locator(".facts").inner_text().split("\n")[1] == "1.25 %"
    assert page.get_by_text("city (number 5)").is_visible()
    assert page.locator("#latent-view").get_by_text("direct path only").is_visible()
    assert page.locator("#latent-view").get_by_text("share of the commonest token").is_visible()
    row = page.locator("tr", has_text="purity_token").locator("td").all_text_contents()
    assert row == ["0.800", "0.100"]


def test_tokens_show_what_they_are(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=0")
    tokens = page.locator(".examples li").first.locator(".token")
    texts = [token.evaluate("e => e.firstChild.data") for token in tokens.all()]
    assert texts == ["<bos>", "in", "Paris", "↵"]
    assert page.locator(".tokens").first.evaluate("e => e.firstElementChild.nextSibling.data") == " "
    assert [token.get_attribute("title") for token in tokens.all()] == [
        '"<bos>" was left out',
        None,
        '" Paris": 4.00',
        '"\\n": 0.123',
    ]
    classes = [token.get_attribute("class") for token in tokens.all()]
    assert classes == ["token out", "token", "token peak above", "token above"]
    second = page.locator(".examples li").nth(1).locator(".token").first
    assert second.evaluate("e => e.firstChild.data") == "␣␣"


def test_stronger_tokens_are_shaded_more_and_not_by_colour_alone(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=0")
    peak, weak = page.locator(".examples li").first.locator(".above").all()
    shade = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).boxShadow, getComputedStyle(e).fontWeight]"
    strong_ground, strong_bar, strong_weight = peak.evaluate(shade)
    weak_ground, weak_bar, weak_weight = weak.evaluate(shade)
    assert strong_ground != weak_ground
    assert strong_bar != weak_bar
    assert int(strong_weight) > int(weak_weight)


def test_values_are_text_that_a_button_or_a_key_shows(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=0")
    value = page.locator(".token.peak .said").first
    width = "e => e.getBoundingClientRect().width"
    assert value.text_content().strip() == "4.00"
    assert value.evaluate(width) == 1
    page.get_by_role("button", name="Show values").click()
    assert value.evaluate(width) > 10
    assert page.get_by_role("button", name="Show values").get_attribute("aria-pressed") == "true"
    page.keyboard.press("v")
    assert value.evaluate(width) == 1


def test_samples_without_tokens_show_their_true_features(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=2")
    item = page.locator(".examples li").first
    assert item.locator(".tokens").count() == 0
    assert item.locator(".where").first.text_content() == "−3.00"
    assert "mud 2.00" in item.text_content()


def test_a_dead_latent_says_so(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=3")
    assert heading(page) == "Latent 3"
    assert page.get_by_text("It never fired on these samples.").is_visible()
    assert page.locator("svg[role=img]").count() == 0


def test_the_histogram_is_a_picture_and_a_text_and_a_table(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=0")
    chart = page.get_by_role("img")
    assert chart.get_attribute("aria-label") == (
        "Histogram of 25 nonzero activations in 2 bins from 0 to 4.00; most, 20, lie in 0 to 1.00."
    )
    heights = [float(bar.get_attribute("height")) for bar in chart.locator("rect").all()]
    assert heights[0] == 4 * heights[1] > 0
    page.get_by_text("As a table").click()
    assert page.locator("details td").all_text_contents() == ["20", "5"]


def test_neighbours_that_the_page_knows_are_links(visit: Any, folder: Path) -> None:
    near = tuple(Neighbour(index=i, label=f"latent {i}", value=0.5) for i in (2, 1))
    first = replace(capitals(), related={"nearest by decoder": near})
    page_file = write_dashboard(
        replace(hand_record(), latents=(first, *hand_record().latents[1:])), folder / "neighbours.html"
    )
    page = visit(folder).open(page_file, "#latent=0&q=paris")
    assert page.locator(".related a").all_text_contents() == ["latent 2"]  # latent 1 has no record
    page.get_by_role("link", name="latent 2").click()
    at_latent(page, 2)
    assert page.get_by_text("not in this list").is_visible()
    page.go_back()
    at_latent(page, 0)
