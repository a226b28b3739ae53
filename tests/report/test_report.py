import json
from dataclasses import replace
from math import isnan, nan

import pytest

from sae_toolkit.report import FigurePanel, Report, read_report
from sae_toolkit.report.plain_json import plain_json

SCORE_KEYS = ["name", "sae", "value", "low", "high", "floor", "ceiling", "n", "id"]


def test_json_has_exactly_the_fixed_keys(report):
    content = report.to_json()
    assert list(content) == ["recipe", "config", "provenance", "saes", "scores", "expected", "controls", "excluded"]
    assert list(content["saes"][0]) == ["name", "variant", "path", "weights_sha256", "site"]
    assert all(list(score) == SCORE_KEYS for score in content["scores"])
    assert all(list(control) == [*SCORE_KEYS, "role"] for control in content["controls"])
    assert list(content["expected"][0]) == ["score", "sae", "at_least", "at_most", "value", "passed", "reason"]


def test_what_is_not_finite_becomes_null(report, tmp_path):
    report.write(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["config"]["rate"] is None
    assert [s["value"] for s in content["scores"] if s["name"] == "splitting_rate"] == [None]


@pytest.mark.parametrize("name", ["", "report.json"])
def test_round_trip_gives_the_same_files(report, tmp_path, name):
    page = report.write(tmp_path / "a")
    again = read_report(tmp_path / "a" / name)
    assert isnan(next(s for s in again.scores if s.name == "splitting_rate").score.value)
    again.write(tmp_path / "b")
    for file in ("report.json", "report_data.json", page.name):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_failed_write_leaves_no_half_file(report, tmp_path):
    with pytest.raises(ValueError, match=r"config\.module"):
        replace(report, config={"module": object()}).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_passed_is_all_expectations(report):
    assert report.passed
    assert not replace(report, expected=[replace(report.expected[0], at_least=0.99)]).passed


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (lambda r: {"saes": [*r.saes, r.saes[0]]}, "several SAEs"),
        (lambda r: {"saes": r.saes[:1]}, "relu"),
        (lambda r: {"controls": [replace(r.controls[0], sae="relu")]}, "both an SAE and a control"),
    ],
)
def test_names_must_be_unambiguous(report, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(report, **changes(report))


def test_reading_says_which_file_is_missing_or_broken(report, tmp_path):
    with pytest.raises(ValueError, match=r"report\.json does not exist"):
        read_report(tmp_path)
    report.write(tmp_path)
    (tmp_path / "report_data.json").write_text("{")
    with pytest.raises(ValueError, match=r"report_data\.json is not readable JSON"):
        read_report(tmp_path)
    (tmp_path / "report_data.json").write_text("{}")
    with pytest.raises(ValueError, match="claim"):
        read_report(tmp_path)


def test_a_figure_must_be_an_svg():
    with pytest.raises(ValueError, match="<svg"):
        FigurePanel(title="t", caption="c", svg="<img>")


def test_plain_json_of_nested_settings():
    assert plain_json({"a": (1, float("inf"), nan), "b": {"c": True}}, "config") == {
        "a": [1, None, None],
        "b": {"c": True},
    }


def test_a_report_needs_nothing_but_names_and_scores(tmp_path):
    bare = Report(recipe="bare", claim="", config={}, provenance={}, saes=[], scores=[])
    assert bare.passed
    assert "No expected numbers" in bare.write(tmp_path).read_text()
