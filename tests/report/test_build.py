"""From a run over two sites of one language model to its report."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_splicing import WIDTHS, FakeSplicingSource

from sae_toolkit import TopKSAE, TrainConfig, train
from sae_toolkit.metrics import score_with_controls
from sae_toolkit.report import Report, build_report, read_report, render_page
from sae_toolkit.report.cards import cards
from sae_toolkit.report.headlines import present_headlines
from sae_toolkit.report.tables import ladder
from sae_toolkit.run_folder import RunFolder

SITES = {"first_sae": "early", "second_sae": "late"}


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Report:
    source, run = FakeSplicingSource(), RunFolder(tmp_path_factory.mktemp("run"))
    saes = {name: TopKSAE(TopKSAE.Config(d_in=WIDTHS[site], d_sae=8, k=2)) for name, site in SITES.items()}
    config = TrainConfig(n_samples=200, batch_size=20, preparation_samples=100)
    result = train(saes, source, config, sites=SITES, **run.training())
    slow = ("floor/ica", "floor/kmeans")
    found = score_with_controls(saes, source, n_samples=200, sites=SITES, loss_tokens=80, leave_out=slow)
    return build_report(Config(), run, saes, source, found, sites=SITES, excluded=result.excluded)


def test_each_sae_says_its_site(made: Report) -> None:
    assert {sae.name: sae.site for sae in made.saes} == SITES
    assert "<td><code>early</code></td>" in render_page(made)


def test_controls_are_called_by_names_that_keep_sae_and_site(made: Report) -> None:
    names = {control.sae for control in made.controls}
    assert {"data rows at early", "random by top-k at late", "first_sae with OMP at early"} <= names


def test_an_sae_competes_with_the_controls_of_its_site(made: Report) -> None:
    for sae, site in SITES.items():
        rivals = {control.sae for control in made.controls_of(sae)}
        assert rivals
        assert rivals == {control.sae for control in made.controls if control.sae.endswith(f" at {site}")}


def test_cards_name_the_best_opponent_of_each_site(made: Report) -> None:
    card = next(card for card in cards(made) if card.label == "Explained variance")
    for line in card.lines:
        opponents = [c for c in made.controls_of(line.sae) if c.role == "opponent" and c.name == "explained_variance"]
        best = max(opponents, key=lambda control: control.score.value)
        assert best.sae in line.note
    assert "best opponent" not in card.context
    column = [h.name for h in ladder(made)[0]].index("explained_variance")
    assert sum(row.cells[column].best_opponent for row in ladder(made)[1]) == 2


def test_without_truth_the_cards_are_those_of_a_language_model(made: Report) -> None:
    names = [headline.name for headline in present_headlines(made.scores)]
    assert names == ["explained_variance", "ce_recovered_mean", "l0", "dead_fraction"]


def test_what_was_left_out_is_told_by_pass_and_reason(made: Report) -> None:
    # training: one token with each batch, ten of training and those that prepare it; evaluation: one batch
    assert made.excluded["training"]["position"] >= 10
    assert made.excluded["evaluation"] == {"position": 1}
    assert "Samples left out of evaluation: position 1." in render_page(made)


def test_the_report_is_read_back_as_it_was(made: Report, tmp_path: Path) -> None:
    made.write(tmp_path / "a")
    read_report(tmp_path / "a").write(tmp_path / "b")
    for file in ("report.json", "report_data.json", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_figures_draw_every_sae(made: Report) -> None:
    titles = [figure.title for figure in made.figures]
    assert titles[:2] == ["Scores between chance and perfect knowledge", "How often latents fire"]
    assert all(name in made.figures[1].svg for name in SITES)
