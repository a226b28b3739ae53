"""A number that knows what chance scores, what perfect knowledge scores, and how sure it is."""

from dataclasses import asdict, dataclass
from math import isnan
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric's value on one dictionary."""

    value: float
    """NaN where the question has no answer (for example no latent ever fired)."""
    low: float | None = None
    """Lower end of the 95 % interval; None where no interval is computed."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    floor: float | None = None
    """What the stated chance control scores; None until a control has been evaluated."""
    ceiling: float | None = None
    """What perfect knowledge scores; None where no truth exists."""
    n: int
    """How many units (features, latents or samples, as the definition says) the value is computed over."""
    id: str
    """The definition, as `name/version`: a changed formula gets a new id."""

    def __post_init__(self) -> None:
        name, _, version = self.id.partition("/v")
        if not name or not version.isdigit():
            raise ValueError(f"Score: id={self.id!r} given, but a definition id looks like 'explained_variance/v1'.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"Score {self.id}: low={self.low} lies above high={self.high}.")

    def normalised(self) -> float | None:
        """0 at the floor, 1 at the ceiling; None where either is missing or they coincide."""
        if self.floor is None or self.ceiling is None or self.ceiling == self.floor or isnan(self.value):
            return None
        return (self.value - self.floor) / (self.ceiling - self.floor)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, NaN as None (JSON has no NaN)."""
        return {k: None if isinstance(v, float) and isnan(v) else v for k, v in asdict(self).items()}
