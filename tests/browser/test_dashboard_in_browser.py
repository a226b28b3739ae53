"""The dashboard in a real browser: by mouse and by keys, in light and dark, wide and narrow.

Every window is asked in the end for errors, warnings and requests (`visit`); none may be there.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from latent_records import capitals, hand_record, large_record

from sae_toolkit.analysis import DictionaryRecord, Example, Neighbour
from sae_toolkit.report import write_dashboard, write_dashboard_folder

pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=alert(1)><!--\"'&\u2028"
GO = "state => new Promise((done) => { addEventListener('hashchange', done, { once: true }); location.hash = state; })"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    return write_dashboard(hand_record(), folder / "small.html")


@pytest.fixture(scope="module")
def record() -> DictionaryRecord:
    return large_record(230, n_examples=5, n_tokens=16)


@pytest.fixture(scope="module")
def large(folder: Path, record: DictionaryRecord) -> Path:
    return write_dashboard(record, folder / "large.html")


@pytest.fixture(scope="module")
def in_files(folder: Path, record: DictionaryRecord) -> Path:
    return write_dashboard_folder(record, folder / "in_files", latents_per_file=50)


def shown(page: Any) -> list[int]:
    """Numbers of the latents in the table, from top to bottom."""
    return [int(text) for text in page.locator("#table tbody a").all_text_contents()]


def go(page: Any, state: str) -> None:
    """To another state of the page that is open, and until it has drawn it."""
    page.evaluate(GO, state)
    page.wait_for_function(
        "!document.querySelector('#latent-view').checkVisibility() || document.querySelector('.facts')"
    )


def heading(page: Any) -> str:
    page.locator(".facts").wait_for()
    return page.locator("#latent-view h2").text_content()


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")


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
    page.wait_for_function("location.hash.includes('sort=density')")
    assert shown(page) == [2, 0, 3]
    assert page.get_by_role("columnheader", name="Density").get_attribute("aria-sort") == "descending"
    page.get_by_role("columnheader", name="Density").get_by_role("button").press("Enter")
    page.wait_for_function("document.querySelector('[aria-sort=ascending]')")
    assert shown(page) == [3, 0, 2]
    assert focused(page) == "Density"  # the keyboard goes on where it was
    page.go_back()
    page.wait_for_function("document.querySelector('[aria-sort=descending]')")
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
    assert "city 1.50" in page.locator(".examples li").first.text_content()
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
    page.wait_for_function("document.querySelector('#latent-view h2').textContent === 'Latent 2'")
    assert page.get_by_text("not in this list").is_visible()
    page.go_back()
    page.wait_for_function("document.querySelector('#latent-view h2').textContent === 'Latent 0'")


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
    page.wait_for_function(f"document.querySelector('#latent-view h2').textContent === 'Latent {order[2]}'")
    page.keyboard.press("k")
    page.wait_for_function(f"document.querySelector('#latent-view h2').textContent === 'Latent {order[1]}'")
    page.get_by_role("button", name="Next").click()
    page.wait_for_function(f"document.querySelector('#latent-view h2').textContent === 'Latent {order[2]}'")
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


def test_hostile_texts_are_shown_and_do_nothing(visit: Any, folder: Path) -> None:
    latent = replace(
        capitals(),
        examples=(replace(capitals().examples[0], tokens=(HOSTILE,) * 4, truth=((HOSTILE, 1.0),)),),
        related={HOSTILE: (Neighbour(index=0, label=HOSTILE, value=1.0),)},
        feature=replace(capitals().feature, name=HOSTILE),
    )
    hostile = replace(
        hand_record(), title=HOSTILE, latents=(latent,), notes={HOSTILE: HOSTILE}, provenance={HOSTILE: HOSTILE}
    )
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
    page.wait_for_function("document.querySelector('#latent-view h2').textContent === 'Latent 121'")
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
    page.wait_for_function("true")
    assert page.evaluate("fetch('small.html').then(() => 'read', () => 'refused')") == "refused"
    assert page.title() != "1"
    assert visitor.errors, "nothing was refused"
    visitor.errors.clear()
