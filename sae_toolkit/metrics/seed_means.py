"""Ladders of several seeds as one: means with Student's t-interval."""

from collections import Counter

from sae_toolkit.metrics.bootstrap import interval_over_seeds
from sae_toolkit.metrics.evaluate import Scores
from sae_toolkit.metrics.ladder import Ladder
from sae_toolkit.metrics.score import Score


def over_seeds(ladders: list[Ladder]) -> Ladder:
    """Means over seeds with Student's t-interval of the mean; one ladder is returned as it is."""
    if len(ladders) == 1:
        return ladders[0]
    return Ladder(
        {name: mean_scores([ladder.saes[name] for ladder in ladders]) for name in ladders[0].saes},
        {
            name: mean_scores([ladder.controls[name] for ladder in ladders])
            for name in ladders[0].controls
            if all(name in ladder.controls for ladder in ladders)
        },
        dict(sum((Counter(ladder.excluded) for ladder in ladders), Counter())),
    )


def mean_scores(runs: list[Scores]) -> Scores:
    """Score by score the mean over runs; n becomes the number of runs."""
    merged: Scores = {}
    for name, first in runs[0].items():
        mean, low, high = interval_over_seeds([run[name].value for run in runs])
        floors = [run[name].floor for run in runs]
        ceilings = [run[name].ceiling for run in runs]
        merged[name] = Score(
            value=mean, low=low, high=high, floor=mean_of(floors), ceiling=mean_of(ceilings), n=len(runs), id=first.id
        )
    return merged


def mean_of(values: list[float | None]) -> float | None:
    """Their mean, None where one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
