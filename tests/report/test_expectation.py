from math import nan

import pytest

from sae_toolkit.metrics.score import Score
from sae_toolkit.report import ControlScore, Expectation, NamedScore


def measured(value: float, name: str = "l0", sae: str = "topk") -> NamedScore:
    return NamedScore(name=name, sae=sae, score=Score(value=value, n=1, id="l0/v1"))


@pytest.mark.parametrize(("value", "passed"), [(4.9, False), (5.0, True), (6.0, True), (7.0, True), (7.1, False)])
def test_both_bounds_belong_to_what_is_allowed(value, passed):
    assert Expectation(score="l0", sae="topk", at_least=5.0, at_most=7.0).check([measured(value)]).passed is passed


def test_a_failure_names_score_sae_value_and_bound():
    reason = Expectation(score="l0", sae="topk", at_most=5.0).check([measured(8.25)]).reason
    assert all(part in reason for part in ("l0", "topk", "8.25", "above 5"))


def test_a_missing_score_is_a_named_failure():
    result = Expectation(score="l0", sae="relu", at_most=5.0).check([measured(1.0)])
    assert (result.passed, result.value) == (False, None)
    assert "l0 of relu" in result.reason


def test_nan_is_a_named_failure():
    result = Expectation(score="l0", sae="topk", at_most=5.0).check([measured(nan)])
    assert not result.passed
    assert "not a number" in result.reason


def test_a_control_can_be_expected_too():
    floor = ControlScore(name="l0", sae="random", score=Score(value=0.4, n=1, id="l0/v1"), role="floor")
    assert Expectation(score="l0", sae="random", at_most=0.5).check([floor]).passed


@pytest.mark.parametrize("bounds", [{}, {"at_least": 2.0, "at_most": 1.0}])
def test_impossible_expectations_are_refused(bounds):
    with pytest.raises(ValueError, match="l0 of topk"):
        Expectation(score="l0", sae="topk", **bounds)
