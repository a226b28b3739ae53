"""Schedules by hand."""

import pytest

from sae_toolkit.training import suggested_learning_rate
from sae_toolkit.training.schedules import learning_rate_factor, warmup_factor


def test_the_trapezoid_by_hand() -> None:
    """10 steps, 3 of warm-up, the last 40 % falling: (t+1)/4 up to 1, then (10-t)/4 from step 6 on."""
    factors = [learning_rate_factor(step, 10, warmup_steps=3, decay_fraction=0.4) for step in range(10)]
    assert factors == [0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_neither_warm_up_nor_decay_is_constant() -> None:
    assert {learning_rate_factor(step, 5, warmup_steps=0, decay_fraction=0.0) for step in range(5)} == {1.0}


def test_a_run_too_short_for_both_has_the_lower_line() -> None:
    """4 steps, 7 of warm-up, all falling: min((t+1)/8, (4-t)/4)."""
    factors = [learning_rate_factor(step, 4, warmup_steps=7, decay_fraction=1.0) for step in range(4)]
    assert factors == [0.125, 0.25, 0.375, 0.25]


@pytest.mark.parametrize(("fraction", "expected"), [(0.5, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]), (0.0, [1] * 8)])
def test_the_penalty_warm_up_by_hand(fraction: float, expected: list[float]) -> None:
    assert [warmup_factor(step, 8, warmup_fraction=fraction) for step in range(8)] == expected


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup_steps", [0, 3, 200])
@pytest.mark.parametrize("decay_fraction", [0.0, 0.01, 0.5, 1.0])
def test_every_step_learns_and_none_exceeds_the_peak(n_steps: int, warmup_steps: int, decay_fraction: float) -> None:
    factors = [
        learning_rate_factor(step, n_steps, warmup_steps=warmup_steps, decay_fraction=decay_fraction)
        for step in range(n_steps)
    ]
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize(
    ("d_sae", "n_steps", "expected"), [(256, 2000, 1e-2), (4096, 2000, 5e-3), (256, 8000, 5e-3), (16, 500, 4e-2)]
)
def test_the_suggested_learning_rate_by_hand(d_sae: int, n_steps: int, expected: float) -> None:
    assert suggested_learning_rate(d_sae=d_sae, n_steps=n_steps) == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [{"d_sae": 0, "n_steps": 5}, {"d_sae": 5, "n_steps": 0}])
def test_no_learning_rate_for_nothing(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="=0 given"):
        suggested_learning_rate(**sizes)
