from math import inf, nan

import pytest

from sae_toolkit.report.numbers import power_of_ten, readable, readable_interval, readable_setting
from sae_toolkit.report.tables import settings


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.988"), (-0.5, "−0.500"), (6.034, "6.03"), (32.04, "32.0"), (256.0, "256"), (12345.6, "12,346"),
        (2.1e-5, "2.1e−05"), (0.0, "0.000"), (nan, "–"), (inf, "–"), (None, "–"), (1.0, "1.000"),
    ],
)  # fmt: skip
def test_readable(value, text):
    assert readable(value) == text


def test_intervals_need_both_ends():
    assert readable_interval(0.5, 0.75) == "0.500 to 0.750"
    assert readable_interval(None, 0.75) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not set"), (True, "yes"), (2_000_000, "2,000,000"), (3e-4, "0.0003"), ([1, 2], "1, 2"), ([], "none"),
     ("2026-11-02T14:05:31+00:00", "2026-11-02 14:05:31 UTC"), ("1+00:00", "1+00:00")],
)  # fmt: skip
def test_readable_settings(value, text):
    assert readable_setting(value) == text


def test_nested_settings_get_dotted_names():
    nested = {"a": {"b": 1, "c": {}}, "saes": [{"k": 2}, {"k": 3}]}
    assert settings(nested) == [("a.b", "1"), ("a.c", "none"), ("saes.0.k", "2"), ("saes.1.k", "3")]


def test_powers():
    assert [power_of_ten(p) for p in (0, -2, -3, -12)] == ["1", "0.01", "10⁻³", "10⁻¹²"]
