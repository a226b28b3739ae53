"""The list of latents in a real browser: searched, sorted, filtered, left and found again.

Every window is asked in the end for errors, warnings and requests (`visit`); none may be there.
"""

from pathlib import Path
from typing import Any

import pytest
from dashboard_steps import at_latent, focused, go, heading, shown

from sae_toolkit.analysis import DictionaryRecord

pytestmark = pytest.mark.slow


def test_the_list_shows_every_latent(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small)
    assert shown(page) == [0, 2, 3]
    assert page.locator("h1").text_content() == "TopK <of> a toy"
    assert "3 of 4 latents, described on 2,000 held-out samples." in page.locator(".claim").text_content()
    assert page.locator(".claim").text_content().endswith("Left out: token_id 3.")
    cells = page.locator("#table tbody tr").first.locator("th, td")
    assert cells.nth(1).locator(".chip").all_text_contents() == ["Paris", "Rome"]
    texts = cells.all_text_contents()
    assert [texts[0], *texts[2:8]] == ["0", "1.25 %", "1.23", "4.00", "city", "0.960", "0.900"]
    assert texts[8] == "0.800 floor 0.100"


def test_search_finds_numbers_tokens_features_and_relations(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small)
    wanted = {
        "paris": [0],
        "2": [2],
        "#3": [3],
        "city": [0],
        "FRANCE": [0],
        "mud": [0, 2],
        "paris mud": [0],
        "neuron 11": [0],
        "x": [],
        "mu": [0, 2],
    }
    for words, found in wanted.items():
        page.get_by_label("Search").fill(words)
        assert shown(page) == found, words
        assert page.locator("#status").text_content().startswith(f"{len(found)} of 3 latents")
    page.reload()
    assert page.get_by_label("Search").input_value() == "mu"
    assert shown(page) == [0, 2]


def test_columns_sort_both_ways_and_the_address_remembers(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small)
    density = page.get_by_role("columnheader", name="Density").get_by_role("button")
    density.click()
    page.locator("[aria-sort=descending]").wait_for()
    assert shown(page) == [2, 0, 3]
    assert page.get_by_role("columnheader", name="Density").get_attribute("aria-sort") == "descending"
    page.get_by_role("columnheader", name="Density").get_by_role("button").press("Enter")
    page.locator("[aria-sort=ascending]").wait_for()
    assert shown(page) == [3, 0, 2]
    assert focused(page) == "Density"  # the keyboard goes on where it was
    page.go_back()
    page.locator("[aria-sort=descending]").wait_for()
    assert shown(page) == [2, 0, 3]


def test_what_has_no_value_comes_last_in_either_order(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small)
    for column, order, found in (("mean", "asc", [2, 0, 3]), ("mean", "desc", [0, 2, 3]), ("f1", "asc", [0, 2, 3])):
        go(page, f"sort={column}&order={order}")
        assert shown(page) == found


def test_every_column_of_a_large_table_sorts_as_python_does(visit: Any, large: Path, record: DictionaryRecord) -> None:
    page = visit(large.parent).open(large, "#firing=alive")
    alive = [latent for latent in record.latents if latent.density > 0]
    columns = {"density": lambda r: r.density, "max": lambda r: r.max_activation}
    columns |= {f"score.{name}": (lambda r, n=name: r.scores[n].value) for name in alive[0].scores}
    for key, value in columns.items():
        go(page, f"firing=alive&sort={key}&order=desc")
        wanted = sorted(alive, key=lambda r: (-float(f"{value(r):.3g}"), r.latent))
        assert shown(page) == [latent.latent for latent in wanted][:200]


def test_long_lists_grow_on_demand(visit: Any, large: Path) -> None:
    page = visit(large.parent).open(large)
    assert len(shown(page)) == 200
    page.get_by_role("button", name="Show 30 more of 30").click()
    assert shown(page) == list(range(230))
    assert page.get_by_role("button", name="Show").count() == 0


def test_filters(visit: Any, small: Path, large: Path) -> None:
    page = visit(small.parent).open(small)
    for choice, found in (("dead", [3]), ("dense", [2]), ("alive", [0, 2]), ("", [0, 2, 3])):
        page.get_by_label("Firing").select_option(choice)
        assert shown(page) == found
    for choice, found in (("with", [0]), ("without", [2, 3])):
        page.get_by_label("True feature").select_option(choice)
        assert shown(page) == found


def test_a_latent_opens_and_back_returns_to_its_row(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small)
    page.get_by_label("Search").fill("mud")
    page.get_by_role("link", name="2", exact=True).click()
    assert heading(page) == "Latent 2"
    assert focused(page) == "latent-heading"
    assert page.title().startswith("Latent 2 · ")
    assert not page.locator("#list-view").is_visible()
    page.go_back()
    page.locator("#table").wait_for()
    assert shown(page) == [0, 2]
    assert page.get_by_label("Search").input_value() == "mud"
    assert focused(page) == "2"
    page.go_forward()
    assert heading(page) == "Latent 2"


def test_a_link_leads_deep(visit: Any, large: Path) -> None:
    page = visit(large.parent).open(large, "#latent=12&sort=density&order=desc&q=topic")
    assert heading(page) == "Latent 12"
    page.get_by_role("link", name="All latents").click()
    page.locator("#table").wait_for()
    assert page.get_by_label("Search").input_value() == "topic"
    assert page.get_by_role("columnheader", name="Density").get_attribute("aria-sort") == "descending"
    assert 12 in shown(page)


def test_an_address_that_means_nothing_shows_the_list(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small)
    for state in ("latent=1", "latent=x", "latent=", "sort=nothing", "main", "%%%", "latent=2.5", "firing=often"):
        go(page, state)
        assert shown(page) == [0, 2, 3]
        assert page.locator("#list-view").is_visible()


def test_keys_walk_through_list_and_latents(visit: Any, large: Path) -> None:
    page = visit(large.parent).open(large, "#sort=max&order=desc&firing=alive")
    order = shown(page)
    page.keyboard.press("j")
    assert focused(page) == str(order[0])
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert focused(page) == str(order[1])
    page.keyboard.press("Enter")
    assert heading(page) == f"Latent {order[1]}"
    page.keyboard.press("ArrowRight")
    at_latent(page, order[2])
    page.keyboard.press("k")
    at_latent(page, order[1])
    page.get_by_role("button", name="Next").click()
    at_latent(page, order[2])
    page.go_back()  # stepping leaves no trail: back leads to the list
    page.locator("#table").wait_for()
    assert shown(page) == order
    page.go_forward()
    page.locator(".facts").wait_for()
    page.keyboard.press("Escape")
    page.locator("#table").wait_for()
    assert focused(page) == str(order[2])


def test_keys_search_and_help(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#latent=0")
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("jk?v/")  # in the search these are letters
    assert page.get_by_label("Search").input_value() == "jk?v/"
    page.keyboard.press("Escape")
    assert page.get_by_label("Search").input_value() == ""
    page.keyboard.press("Escape")
    assert focused(page) != "search"
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("j")  # behind the dialog nothing moves
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog", name="Keys").is_visible()
    page.get_by_role("button", name="Keys").click()
    page.get_by_role("button", name="Close").click()
    assert not page.get_by_role("dialog", name="Keys").is_visible()


def test_the_skip_link_leads_to_the_latents_and_keeps_the_address(visit: Any, small: Path) -> None:
    page = visit(small.parent).open(small, "#q=mud")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the latents"
    page.keyboard.press("Enter")
    assert focused(page) == "main"
    assert page.evaluate("location.hash") == "#q=mud"
