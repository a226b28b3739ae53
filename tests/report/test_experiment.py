"""Reports of experiments that train no SAE."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from sae_toolkit.cli import print_summary
from sae_toolkit.metrics.score import Score
from sae_toolkit.report import (
    ControlScore,
    Expectation,
    Headline,
    Report,
    ReportedSAE,
    build_experiment_report,
    feature_arrows_panel,
    read_report,
    render_page,
    scores_of,
    training_frames_panel,
)
from sae_toolkit.run_folder import RunFolder

REPRESENTED = Headline(name="represented", label="Features represented", question="How many?")


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 7
    p: float = 0.1


def experiment(folder: Path, **changes: object) -> Report:
    sparse = Score(value=0.41, low=0.4, high=0.42, n=20, id="mean_dimensionality/v1")
    scores = scores_of("p = 1", {"represented": 2, "mean_dimensionality": 1.0}, n=5)
    scores += scores_of("p = .1", {"represented": 5, "mean_dimensionality": sparse}, n=5)
    frames = torch.stack([torch.eye(2), 2 * torch.eye(2)])
    figures = [feature_arrows_panel({"p = 1": torch.eye(2)}), training_frames_panel({"p = 1": frames}, [0, 1])]
    report = build_experiment_report(
        Config(), RunFolder(folder), scores, figures, description={"kind": "toy model"}, headlines=[REPRESENTED]
    )
    return replace(report, **changes)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return experiment(tmp_path)


def test_rows_are_what_was_scored_in_order(report):
    assert report.measured_names == report.subjects == ["p = 1", "p = .1"]
    assert list(report.saes) == []


def test_name_claim_seed_and_description_are_kept(report):
    assert (report.recipe, report.claim) == ("test_experiment", "Reports of experiments that train no SAE.")
    assert report.config == {"seed": 7, "p": 0.1}
    assert report.provenance["seed"] == 7
    assert report.provenance["source"] == {"kind": "toy model"}


def test_bare_numbers_become_scores_and_scores_stay():
    rows = scores_of("a", {"x": 2, "y": Score(value=0.5, n=9, id="y/v3")}, n=4, version=2)
    assert [(r.name, r.sae, r.score.value, r.score.n, r.score.id) for r in rows] == [
        ("x", "a", 2.0, 4, "x/v2"),
        ("y", "a", 0.5, 9, "y/v3"),
    ]


def test_expectations_find_a_row_by_its_name(report):
    expected = [
        Expectation(score="represented", sae="p = .1", at_least=5.0, at_most=5.0),
        Expectation(score="represented", sae="p = 1", at_least=3.0),
        Expectation(score="represented", sae="p = 2", at_least=1.0),
    ]
    assert [r.passed for _, r in replace(report, expected=expected).check_expected()] == [True, False, False]


def test_the_chosen_scores_get_cards_and_the_page_speaks_of_no_sae(report):
    page = render_page(report)
    assert "Features represented" in page
    assert page.count('class="card"') == 1
    words = re.sub(r"<(style|script|svg).*?</\1>", "", page, flags=re.DOTALL)
    assert "SAE" not in words.replace("no SAE", "")
    assert "best opponent" not in words


def test_the_page_has_a_player_and_still_fetches_nothing(report):
    page = render_page(report)
    assert "data-frame=" in page
    assert "makePlayer" in page
    assert re.search(r"https?://", page) is None


def test_a_written_experiment_reads_back_the_same(report, tmp_path):
    report.write(tmp_path / "a")
    read_report(tmp_path / "a").write(tmp_path / "b")
    for file in ("report.json", "report_data.json", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_summary_lists_the_rows(report, capsys):
    print_summary(report)
    text = capsys.readouterr().out
    assert all(part in text for part in ("represented", "p = 1", "p = .1", "5"))


def test_a_summary_without_headlines_is_silent(report, capsys):
    print_summary(replace(report, headlines=[]))
    assert capsys.readouterr().out == ""


def test_controls_stand_beside_the_rows(report):
    score = Score(value=1.0, n=5, id="represented/v1")
    control = ControlScore(name="represented", sae="linear model", score=score, role="opponent")
    page = render_page(replace(report, controls=[control]))
    assert "best opponent 1.000 (linear model)" in page
    assert page.count('<tr class="ours">') == 2
    assert '<td class="role">measured</td>' in page


def test_an_experiment_may_keep_saes_too(report):
    sae = ReportedSAE(name="TopK", variant="TopKSAE", path="saes/TopK", weights_sha256="ab")
    both = replace(report, saes=[sae], scores=[*report.scores, *scores_of("TopK", {"represented": 4})])
    assert both.measured_names == ["TopK", "p = 1", "p = .1"]
    assert "TopK" in render_page(both)


def test_one_name_means_one_thing(report):
    sae = ReportedSAE(name="p = 1", variant="TopKSAE", path="saes/a", weights_sha256="ab")
    with pytest.raises(ValueError, match=r"several rows are called \['p = 1'\]"):
        replace(report, saes=[sae])


def test_reports_from_before_experiments_can_be_read(report, tmp_path):
    bare = Report(recipe="bare", claim="", config={}, provenance={}, saes=[], scores=[])
    bare.write(tmp_path)
    data = (tmp_path / "report_data.json").read_text()
    start = data.index(',\n "subjects"')
    (tmp_path / "report_data.json").write_text(data[:start] + "\n}\n")
    again = read_report(tmp_path)
    assert render_page(again) == render_page(bare)
    assert [headline.name for headline in again.headlines][:2] == ["mean_matched_cosine", "recall_at_0.9"]
