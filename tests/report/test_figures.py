import matplotlib as mpl
import numpy as np
import pytest
import torch

from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.report import cosine_histogram, density, dictionary_geometry, match_matrix, score_bars, training_curves
from sae_toolkit.report.match_matrix import LEVELS, diverging_pixels, order_by_match
from sae_toolkit.report.style import LIGHT, SENTINEL


def random_rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def test_figures_are_deterministic_themed_and_leave_matplotlib_alone(report, make_report):
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        second = make_report()
    assert dict(mpl.rcParams) == before
    assert len(report.figures) == 6
    for figure, again in zip(report.figures, second.figures, strict=True):
        assert figure.svg == again.svg
        assert not any(sentinel in figure.svg for sentinel in SENTINEL.values())
        assert "var(--muted)" in figure.svg
        assert "#000000" not in figure.svg  # nothing is drawn in matplotlib's own black


def test_sentinels_are_all_different():
    assert len(set(SENTINEL.values())) == len(LIGHT)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_geometry_in_every_dimension(d):
    assert dictionary_geometry(random_rows(5, d), {"a": random_rows(7, d, 1)}).startswith("<svg")


def test_geometry_refuses_another_space():
    with pytest.raises(ValueError, match="3 dimensions"):
        dictionary_geometry(random_rows(5, 4), {"a": random_rows(5, 3)})


def test_a_permuted_perfect_dictionary_is_a_diagonal():
    truth = random_rows(20, 8)
    permutation = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    features, latents = order_by_match(match_latents(truth, truth[permutation]))
    cosines = truth[permutation][latents] @ truth[features].T
    assert torch.equal(features, torch.arange(20))
    torch.testing.assert_close(cosines.diagonal(), torch.ones(20))


def test_pairs_come_first_and_the_unmatched_last():
    # latent 0 opposes feature 2, latent 1 is feature 2, latent 2 is feature 0: feature 1 and latent 0 have no partner
    truth = torch.eye(3)
    features, latents = order_by_match(match_latents(truth, torch.stack([-truth[2], truth[2], truth[0]])))
    assert features.tolist() == [0, 2, 1]
    assert latents.tolist() == [2, 1, 0]


@pytest.mark.parametrize(("n_features", "d_sae"), [(300, 520), (520, 300), (1, 1)])
def test_match_matrices_of_any_size(n_features, d_sae):
    svg = match_matrix(random_rows(n_features, 4), {"a": random_rows(d_sae, 4, 1)})
    assert f">{d_sae:,}<" in svg
    assert len(svg) < 400_000


def test_pixels_say_sign_by_colour_and_size_by_opacity():
    pixels = diverging_pixels(np.array([[1.0, 0.0, -1.0, 0.5]]))[0]
    assert pixels[:, 3].tolist() == [255, 0, 255, 128]
    assert pixels[0, 2] > pixels[0, 0]  # blue
    assert pixels[2, 0] > pixels[2, 2]  # orange
    assert LEVELS * 0.5 == 16  # one half is exactly a level


def test_dead_latents_are_counted_apart():
    assert ">3<" in density({"a": torch.tensor([0, 0, 0, 0.01, 0.5])}, n_samples=100)
    assert ">5<" in density({"a": torch.zeros(5)}, n_samples=100)


def test_histogram_counts_the_features_that_were_missed():
    assert "2 of 5 features below 0.9" in cosine_histogram({"a": torch.tensor([0.9, 1.0, 1.0000001, 0.89, 0.2])})


def test_curves_show_what_the_probe_measured(report):
    history = report.history
    assert "Mean matched cosine" in training_curves(history)
    assert "Mean matched cosine" not in training_curves(history, quantities=["loss"])
    with pytest.raises(ValueError, match="accuracy"):
        training_curves(history, quantities=["accuracy"])


def test_curves_leave_out_what_is_not_a_number():
    records = [{"samples": s, "saes": {"a": {"loss": v}}} for s, v in ((1, 1.0), (2, float("nan")), (3, 0.5))]
    assert training_curves(records).startswith("<svg")
    assert training_curves(records[:1]).startswith("<svg")


def test_score_bars_say_what_was_measured(report):
    with pytest.raises(ValueError, match="ce_recovered_zero"):
        score_bars(report.scores, names=["ce_recovered_zero"])
    assert "no value" in score_bars(report.scores, names=["splitting_rate"])


@pytest.mark.parametrize("draw", [cosine_histogram, match_matrix, density])
def test_no_sae_is_an_error_that_says_so(draw):
    arguments = {match_matrix: ((torch.eye(2), {}), {}), density: (({},), {"n_samples": 1})}.get(draw, (({},), {}))
    with pytest.raises(ValueError, match="no SAE given"):
        draw(*arguments[0], **arguments[1])
