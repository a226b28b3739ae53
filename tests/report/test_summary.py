"""What the command line prints of a report."""

import pytest

from sae_toolkit.cli import print_summary
from sae_toolkit.metrics import Score
from sae_toolkit.report import NamedScore, Report, ReportedSAE


def test_the_summary_shows_the_headline_scores_that_were_measured(capsys: pytest.CaptureFixture[str]) -> None:
    measured = {"explained_variance": 0.25, "ce_recovered_mean": 0.75, "ce_recovered_zero": 0.5, "l0": 3.0}
    scores = [NamedScore(name=n, sae="a", score=Score(value=v, n=9, id=f"{n}/v1")) for n, v in measured.items()]
    sae = ReportedSAE(name="a", variant="TopKSAE", path="x", weights_sha256="ab")
    print_summary(Report(recipe="r", claim="", config={}, provenance={}, saes=[sae], scores=scores))
    text = capsys.readouterr().out
    assert all(shown in text for shown in ("explained_variance", "ce_recovered_mean", "0.75"))
    assert not any(hidden in text for hidden in ("ce_recovered_zero", "mean_matched_cosine"))
