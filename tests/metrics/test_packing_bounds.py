from math import exp, pi, sqrt

import pytest
import torch
from polytopes import polygon

from sae_toolkit.ground_truth import low_coherence_directions, random_directions
from sae_toolkit.metrics.packing_bounds import (
    almost_orthogonal_count,
    packing,
    random_coherence,
    random_coherence_upper,
    random_mean_abs_cosine,
    random_rms_cosine,
)


@pytest.mark.parametrize(
    ("d", "n", "largest", "mean_of_largest", "welch", "upper"),
    [
        (64, 256, 0.491, 0.373, 0.1085, 0.57),
        (64, 1024, 0.581, 0.415, 0.121, 0.64),
        (256, 1024, 0.295, 0.213, 0.0542, 0.32),
        pytest.param(512, 4096, 0.241, 0.167, 0.0413, 0.25, marks=pytest.mark.slow),
    ],
)
def test_random_directions_reach_the_independent_measurements(d, n, largest, mean_of_largest, welch, upper):
    found = packing(random_directions(n, d, seed=0))
    assert found.largest == pytest.approx(largest, rel=0.08)
    assert found.mean_of_largest == pytest.approx(mean_of_largest, rel=0.02)
    assert found.rms == pytest.approx(1 / sqrt(d), rel=0.02)
    assert found.welch == pytest.approx(welch, rel=0.005)
    assert found.random_upper == pytest.approx(upper, abs=0.006)
    assert found.welch < found.largest < found.random_upper


def test_optimised_frames_lie_between_welch_and_random():
    found = packing(low_coherence_directions(48, 16, seed=0, n_steps=200))
    chance = packing(random_directions(48, 16, seed=0))
    assert found.welch < found.largest < 0.6 * chance.largest


def test_a_triangle_meets_the_welch_bound():
    found = packing(polygon(3))
    assert found[:4] == pytest.approx((0.5, 0.5, 0.5, 0.5))


def test_rms_of_random_directions():
    assert random_rms_cosine(64) == 0.125


def test_the_upper_estimate_is_never_above_one():
    assert random_coherence_upper(1000, 2) == 1.0


def test_the_count_inverts_the_upper_estimate():
    # sqrt(2 ln(n^2 / 2) / d) = eps at n = sqrt(2) exp(eps^2 d / 4)
    n = round(sqrt(2) * almost_orthogonal_count(0.25, 512))
    assert n == round(sqrt(2) * exp(8))
    assert random_coherence_upper(n, 512) == pytest.approx(0.25, rel=1e-4)


def test_so_many_directions_really_fit():
    # exp(.4^2 * 128 / 4) = 167 random directions stay below .4
    n = int(almost_orthogonal_count(0.4, 128))
    assert n == 167
    assert all(packing(random_directions(n, 128, seed=seed)).largest < 0.4 for seed in range(5))


def test_impossible_questions():
    with pytest.raises(ValueError, match="needs 2"):
        packing(torch.ones(1, 3))
    with pytest.raises(ValueError, match="epsilon=0"):
        almost_orthogonal_count(0.0, 10)


def test_the_coherence_of_random_directions_is_the_median_of_many_draws():
    g = torch.Generator().manual_seed(0)
    drawn = [packing(torch.randn(40, 10, generator=g)).largest for _ in range(400)]
    below = sum(largest < random_coherence(40, 10) for largest in drawn) / 400
    assert abs(below - 0.5) < 3 * (0.25 / 400) ** 0.5


@pytest.mark.parametrize(("n", "d", "measured"), [(256, 64, 0.491), (1024, 64, 0.581), (1024, 256, 0.295)])
def test_the_coherence_of_random_directions_is_near_independent_measurements(n, d, measured):
    assert random_coherence(n, d) == pytest.approx(measured, rel=0.05)


def test_two_directions_in_the_plane():
    # |cos| of a uniform angle: mean 2 / pi, median cos 45 degrees; on a line it is always 1
    assert random_mean_abs_cosine(2) == pytest.approx(2 / pi)
    assert random_coherence(2, 2) == pytest.approx(sqrt(0.5))
    assert random_coherence(2, 1) == 1
    assert random_mean_abs_cosine(1) == pytest.approx(1)


def test_one_direction_has_no_coherence():
    with pytest.raises(ValueError, match="needs 2"):
        random_coherence(1, 5)
