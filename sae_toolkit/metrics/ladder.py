"""The control ladder: the scores of SAEs with the floors and ceilings that belong to them, in one call."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.metrics.bootstrap import interval_over_seeds
from sae_toolkit.metrics.controls import CEILING, FLOOR, floor_directions, standard_controls, with_pursuit
from sae_toolkit.metrics.evaluate import Scores, evaluate, with_reference
from sae_toolkit.metrics.probe import linear_probe
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE
from sae_toolkit.seeding import derived_seed

CONTROL_SAMPLES = 50_000
"""Train-split samples that data-driven controls (k-means, components, rows) are made from."""


@dataclass(frozen=True)
class Ladder:
    """Scores of SAEs, each with its floor and ceiling, and of every control behind them."""

    saes: Mapping[str, Scores]
    controls: Mapping[str, Scores]
    """Keys start with "floor/" or "ceiling/"; they end with " k=..." where SAEs of several sparsities were scored."""


def score_with_controls(
    saes: Mapping[str, AbstractSAE],
    source: ActivationSource,
    *,
    n_samples: int,
    seed: int = 0,
    leave_out: Collection[str] = (),
) -> Ladder:
    """Scores every SAE on the eval split, next to controls as wide and as sparse as itself.

    SAEs of one width and about one L0 share their controls. The floor of each score is the random dictionary's; the
    ceiling that of the true directions with non-negative OMP or, where they are unknown, of the SAE's own directions.
    """
    scores = evaluate(dict[str, AbstractDictionary](saes), source, n_samples=n_samples, seed=seed)
    sample = train_sample(source, seed=seed)
    truth = source.world if isinstance(source, SuperpositionSource) else None
    groups: dict[tuple[int, int], list[str]] = {}
    for name, sae in saes.items():
        groups.setdefault(group_of(sae.d_sae, scores[name]["l0"].value, groups), []).append(name)
    widths = {d_sae for d_sae, _ in groups}
    floors = {w: floor_directions(sample, w, seed=seed, leave_out=leave_out) for w in widths}
    referenced: dict[str, Scores] = {}
    controls: dict[str, Scores] = {}
    for (d_sae, k), names in groups.items():
        built = standard_controls(
            saes[names[0]],
            sample,
            k=k,
            seed=seed,
            floors=floors[d_sae],
            directions=None if truth is None else truth.directions,
            bias=None if truth is None else truth.bias,
        )
        pursued = {f"ceiling/{name} with OMP": with_pursuit(saes[name], k=k) for name in names}
        found = evaluate(built | pursued, source, n_samples=n_samples, seed=seed)
        suffix = f" k={k}" if len({sparsity for _, sparsity in groups}) > 1 else ""
        suffix += f" width={d_sae}" if len(widths) > 1 else ""
        controls |= {key if key in pursued else key + suffix: values for key, values in found.items()}
        for name in names:
            ceiling = found[f"ceiling/{name} with OMP" if truth is None else CEILING]
            referenced[name] = with_reference(scores[name], found[FLOOR], ceiling)
    if truth is not None:
        controls["ceiling/linear_probe"] = linear_probe(source, seed=seed)
    return Ladder({name: referenced[name] for name in saes}, controls)


def group_of(d_sae: int, l0: float, groups: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Width and atoms of an SAE's controls: those of an earlier SAE as wide and, within 10 %, as sparse; or its own."""
    for width, k in groups:
        if width == d_sae and abs(l0 - k) <= 0.1 * k:
            return width, k
    return d_sae, max(1, round(l0))


def train_sample(source: ActivationSource, *, seed: int) -> torch.Tensor:
    """Train-split activations from a stream of their own."""
    stream = source.stream(1024, seed=derived_seed(seed, "controls"), split="train")
    return torch.cat([next(stream).activations.float() for _ in range(-(-CONTROL_SAMPLES // 1024))])


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
