"""An expected number: which score of which SAE must lie where, and whether it does."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, Literal

from sae_toolkit.metrics.score import Score

Role = Literal["floor", "opponent", "ceiling"]


@dataclass(frozen=True, kw_only=True)
class NamedScore:
    """A score, and the SAE (or model, or method) that it belongs to."""

    name: str
    """`mean_matched_cosine`, `l0`, ..."""
    sae: str
    """The name of a `ReportedSAE`, or one of the report's `subjects`."""
    score: Score


@dataclass(frozen=True, kw_only=True)
class ControlScore:
    """The same score of a dictionary that nobody trained as an SAE."""

    name: str
    sae: str
    """The control dictionary: "random", "PCA", "true dictionary + OMP", ..."""
    score: Score
    role: Role
    """Chance; another method that tries; perfect knowledge."""


@dataclass(frozen=True, kw_only=True)
class ExpectationResult:
    """What became of an expectation."""

    value: float | None
    """None where the score is missing."""
    passed: bool
    reason: str
    """Why it is met or missed, in words."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """`at_least` <= score <= `at_most`; a missing score and NaN are failures."""

    score: str
    sae: str
    """An SAE, a subject, or a control: a floor that rises is news, too."""
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"Expectation on {self.score} of {self.sae}: no bound given. Give at_least or at_most.")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"Expectation on {self.score} of {self.sae}: at_least={self.at_least} lies above "
                f"at_most={self.at_most}, which no value can meet."
            )

    def check(self, scores: Sequence[NamedScore | ControlScore]) -> ExpectationResult:
        """Looks the score up and compares it."""
        what = f"{self.score} of {self.sae}"
        values = [s.score.value for s in scores if s.name == self.score and s.sae == self.sae]
        if not values:
            return ExpectationResult(value=None, passed=False, reason=f"{what} was not reported")
        value = values[-1]
        if isnan(value):
            return ExpectationResult(value=value, passed=False, reason=f"{what} is not a number")
        if self.at_least is not None and value < self.at_least:
            return ExpectationResult(
                value=value, passed=False, reason=f"{what} is {value:.6g}, below {self.at_least:g}"
            )
        if self.at_most is not None and value > self.at_most:
            return ExpectationResult(value=value, passed=False, reason=f"{what} is {value:.6g}, above {self.at_most:g}")
        return ExpectationResult(value=value, passed=True, reason=f"{what} is {value:.6g}")

    def to_json(self, result: ExpectationResult) -> dict[str, Any]:
        """The expectation and its outcome as one flat entry of report.json."""
        return {**asdict(self), **asdict(result)}
