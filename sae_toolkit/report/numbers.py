"""Numbers as a reader wants them: three digits that matter, a real minus sign, no noise."""

from datetime import datetime
from math import isfinite
from typing import Any

ABSENT = "–"


def readable(value: float | None) -> str:
    """0.987, 3.21, 32.0, 1,024, 2.1e−05; a dash where there is no number."""
    if value is None or not isfinite(value):
        return ABSENT
    whole = abs(value) >= 100 and float(value).is_integer()
    return (f"{value:,.0f}" if whole else with_digits(value)).replace("-", "−")


def with_digits(value: float) -> str:
    """A fraction to three decimals, larger numbers to fewer, tiny ones in powers of ten."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 5e-4:
        return f"{value:.1e}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{3 if size < 2 else 2 if size < 10 else 1}f}"


def power_of_ten(power: int) -> str:
    """1, 0.1, 0.01, then 10⁻³, ..."""
    if power >= -2:
        return f"{10.0**power:g}"
    return "10⁻" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(-power))


def readable_interval(low: float | None, high: float | None) -> str:
    """Both ends, or a dash."""
    return ABSENT if low is None or high is None else f"{readable(low)} to {readable(high)}"


def readable_setting(value: Any) -> str:
    """A config or provenance entry; words for what has no digits."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−") if abs(value) >= 10_000 else str(value).replace("-", "−")
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(readable_setting(item) for item in value) or "none"
    return readable_time(str(value))


def readable_time(text: str) -> str:
    """An ISO time in UTC as "2026-11-02 14:05:31 UTC"; any other text as it is."""
    if not text.endswith("+00:00"):
        return text
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return text
