"""The dashboard as a file: what its data say, what hostile texts cannot do, how large it gets."""

import json
import re
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import pytest
from latent_records import HOSTILE, hand_record, hostile_record, large_record
from page_checks import contrast, outline

from sae_toolkit.analysis import DictionaryRecord, Example, LatentRecord
from sae_toolkit.report import write_dashboard, write_dashboard_folder
from sae_toolkit.report.dashboard_data import rounded, script_json
from sae_toolkit.report.style import DARK, LIGHT


def page_of(record: DictionaryRecord, tmp_path: Path) -> str:
    return write_dashboard(record, tmp_path / "page.html").read_text(encoding="utf-8")


def data_in(page: str, name: str) -> dict:
    match = re.search(rf'<script id="{name}" type="application/json">(.*?)</script>', page, re.S)
    assert match is not None
    return json.loads(match[1])


def policy_of(page: str) -> str:
    match = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert match is not None
    return match[1].replace("&#39;", "'")


def test_the_overview_says_what_the_record_says(tmp_path):
    found = data_in(page_of(hand_record(), tmp_path), "overview")
    text = found["texts"]
    assert found["latents"] == [0, 2, 3]
    assert found["density"] == [0.0125, 0.4, 0]
    assert found["mean"] == [1.23, -0.5, None]
    assert found["max"] == [4, 2, 0]
    assert found["features"] == [[5, "city", 0.96, 0.9], None, None]
    assert found["scores"]["purity_token"] == {"values": [0.8, None, None], "floors": [0.1, 0.1, None]}
    assert [[text[i] for i in ids] for ids in found["peaks"]] == [[" Paris", " Rome"], ["mud"], []]
    words = {text[i] for i in found["words"][0]}
    assert {" Paris", " Rome", "\n", "city", " France", " mud", "latent 2", "latent 3", "neuron 11"} == words
    assert found["notes"]["promoted tokens"] == "direct path only"


def test_the_details_give_every_example_back(tmp_path):
    record = hand_record()
    found = data_in(page_of(record, tmp_path), "part-0")
    text = found["texts"]
    for latent, part in zip(record.latents, found["latents"], strict=True):
        examples = [
            Example(
                band=text[band],
                tokens=tuple(text[i] for i in tokens),
                activations=tuple(nan if value is None else float(value) for value in activations),
                peak=peak,
                document=document,
                position=position,
                truth=tuple((text[name], float(coefficient)) for name, coefficient in truth),
            )
            for band, tokens, activations, peak, document, position, truth in part["examples"]
        ]
        for given, wanted in zip(examples, latent.examples, strict=True):
            short = tuple(0.123 if value == 0.123456 else value for value in wanted.activations)
            same = [a == b or (isnan(a) and isnan(b)) for a, b in zip(given.activations, short, strict=True)]
            assert all(same)
            assert replace(given, activations=()) == replace(wanted, activations=())
        related = {title: [(i, text[label], value) for i, label, value in near] for title, near in part["related"]}
        assert related == {
            title: [(near.index, near.label, near.value) for near in nearby] for title, nearby in latent.related.items()
        }
    assert found["latents"][0]["histogram"] == {"edges": [0, 1, 4], "counts": [20, 5]}
    assert found["latents"][2]["histogram"] is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, 0.123),
        (1234.5, 1230),
        (2.0, 2),
        (-1.234e-7, -1.23e-7),
        (nan, None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_numbers_keep_three_digits(value, shown):
    assert rounded(value) == shown
    assert isinstance(rounded(2.0), int)


def test_hostile_texts_stay_texts(tmp_path):
    page = page_of(hostile_record(), tmp_path)
    assert "<img" not in page
    assert outline(page).scripts == 3  # the page's own, and two that hold data
    assert data_in(page, "part-0")["texts"][0] == "top"
    assert HOSTILE in data_in(page, "part-0")["texts"]
    assert data_in(page, "overview")["features"][0][1] == HOSTILE


def test_hostile_texts_stay_texts_in_files_that_run(tmp_path):
    write_dashboard_folder(hostile_record(), tmp_path / "folder")
    part = (tmp_path / "folder/latents/000.js").read_text(encoding="utf-8")
    assert re.search(r"[<>&\u2028\u2029]", part) is None
    match = re.fullmatch(r"saeDashboardPart\(0,(.*)\);\n", part)
    assert match is not None
    assert HOSTILE in json.loads(match[1])["texts"]


def test_half_a_character_can_be_written():
    assert json.loads(script_json({"text": "\ud83d"})) == {"text": "\ud83d"}
    script_json({"text": "\ud83d"}).encode("utf-8")


def test_the_page_is_balanced_names_its_parts_and_fetches_nothing(tmp_path):
    page = page_of(hand_record(), tmp_path)
    found = outline(page)
    assert len(found.ids) == len(set(found.ids)) > 10
    assert re.search(r"https?:|//[a-z]+\.|@import|url\(", page.split("<body")[0].split("<script>")[0]) is None
    assert re.search(r"https?://", page) is None
    assert all(link.startswith("#") for link in found.links)
    assert all(mark in page for mark in ("<main", "<header", "<footer", 'class="skip"', 'lang="en"', 'role="search"'))


def test_the_provenance_names_no_folder_and_is_short(tmp_path):
    provenance = {"model": "/home/somebody/models/gpt2", "sketch": [0.25] * 500}
    page = page_of(replace(hand_record(), provenance=provenance), tmp_path)
    assert "<td>gpt2</td>" in page
    assert "somebody" not in page
    assert max(len(value) for value in re.findall(r"<td>(.*?)</td>", page)) == 160


def test_one_file_runs_its_own_script_alone(tmp_path):
    policy = policy_of(page_of(hand_record(), tmp_path))
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]+';", policy)


def test_a_folder_lets_that_script_add_others(tmp_path):
    index = write_dashboard_folder(hand_record(), tmp_path / "folder")
    policy = policy_of(index.read_text(encoding="utf-8"))
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]+' 'strict-dynamic';", policy)
    assert policy.startswith("default-src 'none';")


def test_a_folder_holds_the_latents_in_files(tmp_path):
    record = large_record(5, n_examples=5, n_tokens=6)
    index = write_dashboard_folder(record, tmp_path / "folder", latents_per_file=2)
    files = sorted(path.name for path in (tmp_path / "folder/latents").iterdir())
    assert files == ["000.js", "001.js", "002.js"]
    page = index.read_text(encoding="utf-8")
    assert data_in(page, "overview")["latentsPerPart"] == 2
    assert 'id="part-0"' not in page
    last = re.fullmatch(r"saeDashboardPart\(2,(.*)\);\n", (tmp_path / "folder/latents/002.js").read_text())
    assert last is not None
    assert len(json.loads(last[1])["latents"]) == 1


def test_a_folder_replaces_a_dashboard_and_nothing_else(tmp_path):
    folder = tmp_path / "folder"
    write_dashboard_folder(large_record(5, n_examples=5, n_tokens=6), folder, latents_per_file=1)
    write_dashboard_folder(hand_record(), folder)
    assert [path.name for path in (folder / "latents").iterdir()] == ["000.js"]
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match=r"'mine\.txt', which is no part of a dashboard"):
        write_dashboard_folder(hand_record(), folder)
    assert (folder / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("write", [write_dashboard, write_dashboard_folder])
def test_an_empty_record_is_refused(tmp_path, write):
    with pytest.raises(ValueError, match="holds no latent"):
        write(replace(hand_record(), latents=()), tmp_path / "page.html")


def test_no_latents_per_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="latents_per_file=0 asked"):
        write_dashboard_folder(hand_record(), tmp_path / "folder", latents_per_file=0)


def test_200_latents_of_a_language_model_stay_below_5_mb(tmp_path):
    record = large_record(200, n_examples=20, n_tokens=40)
    shown = [len(example.tokens) for latent in record.latents for example in latent.examples]
    assert len(record.latents) == 200
    assert sum(shown) > 140_000
    assert len(page_of(record, tmp_path).encode()) < 5_000_000


def test_a_latent_that_never_fired_is_shown_as_such(tmp_path):
    record = replace(hand_record(), latents=hand_record().latents[2:])
    found = data_in(page_of(record, tmp_path), "overview")
    assert found["density"] == [0]
    assert found["mean"] == [None]
    assert found["peaks"] == [[]]


def test_without_tokens_a_latent_shows_the_features_that_fire_most_often(tmp_path):
    negated = hand_record().latents[1]
    truths = ((("mud", 2.0), ("rain", 1.0)), (("rain", 0.5),), (("sun", 3.0), ("rain", 0.1)))
    examples = tuple(replace(negated.examples[0], truth=truth) for truth in truths)
    record = replace(hand_record(), latents=(replace(negated, examples=examples),))
    found = data_in(page_of(record, tmp_path), "overview")
    assert [found["texts"][i] for i in found["peaks"][0]] == ["rain", "mud", "sun"]


def test_scores_that_some_latents_lack_are_empty_there(tmp_path):
    first, *others = hand_record().latents
    bare: LatentRecord = replace(first, scores={})
    found = data_in(page_of(replace(hand_record(), latents=(bare, *others)), tmp_path), "overview")
    assert found["scores"]["entropy"]["values"] == [None, 3.5, None]


def test_text_is_legible_on_every_shade():
    for theme in (LIGHT, DARK):
        for shade in ("shade", "shade-negative"):
            assert contrast(theme["ink"], theme[shade]) >= 4.5
            assert contrast(theme["surface"], theme[shade]) >= 1.25  # and the shade is seen beside no shade
