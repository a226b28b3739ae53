"""Which latents other seeds, widths or variants find, too: what one SAE's latents are worth without any truth.

PW-MCC: mean cosine of decoder directions under optimal assignment, as in Song et al. 2025 (arXiv 2505.20254); shared
latents: Paulo & Belrose 2025 (arXiv 2501.16615). Signed, alive latents only, next to what random dictionaries of the
same widths reach. Stability is necessary, not sufficient: k-means is stable, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isnan, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.metrics.bootstrap import Interval, interval_over_seeds, mean_score
from sae_toolkit.metrics.controls import random_directions
from sae_toolkit.metrics.evaluate import feed
from sae_toolkit.metrics.matching import CLOSE, ROUNDING, assign, cosine_blocks, unit_rows
from sae_toolkit.metrics.replication import MIN_SEEDS
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import Sparsity
from sae_toolkit.saes.base import AbstractDictionary
from sae_toolkit.seeding import derived_seed

N_FLOORS = 8
"""Sets of random dictionaries behind a floor."""
NEAR_FLOOR = 0.1
"""In PW-MCC; 20 of 256 features active in 64 dimensions give .34 to .41 over a floor of .33."""
SHARED = f"shared_at_{CLOSE}"


class PairStability(NamedTuple):
    """Two SAEs, their alive latents paired one to one so that the sum of max(cosine, 0) is largest."""

    pw_mcc: float
    """Mean cosine over as many pairs as the one with fewer alive latents has; NaN where one has none."""
    cross_mmcs: float
    """Mean over alive latents, then over both sides, of the cosine with the nearest alive latent of the other."""
    shared: float
    """Share of those pairs with a cosine of at least .7."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """How alike several SAEs are: scores over all pairs, every pair, and every latent."""

    scores: Mapping[str, Score]
    """`pw_mcc`, `cross_mmcs`, `shared_at_0.7`: means over pairs. `found_in_<m>`, m from 2 to the number of SAEs: share
    of all alive latents that are found in at least m SAEs. Each with its floor."""
    floor_intervals: Mapping[str, tuple[float, float]]
    """Where one more set of random dictionaries of these widths lies with 95 % (prediction interval)."""
    pairs: Mapping[tuple[str, str], PairStability]
    reproducibility: Mapping[str, Float64[Tensor, " d_sae"]]
    """Of each latent, the mean cosine with its partners in the other SAEs, 0 where it has none; NaN if it is dead."""
    found_in: Mapping[str, Int[Tensor, " d_sae"]]
    """In how many SAEs each latent is found (a partner at cosine .7 or more), its own included; 0 if it is dead."""
    n_alive: Mapping[str, int]

    @property
    def above_floor(self) -> bool:
        """Whether PW-MCC, with its whole interval, lies above what random dictionaries of these widths reach."""
        score = self.scores["pw_mcc"]
        return (score.value if score.low is None else score.low) > self.floor_intervals["pw_mcc"][1]

    @property
    def unidentifiable(self) -> bool:
        """Whether seeds agree hardly better than chance: PW-MCC within .1 of its floor."""
        score = self.scores["pw_mcc"]
        return score.floor is not None and score.value < score.floor + NEAR_FLOOR

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, NaN as None: everything but what there is of every latent."""
        return {
            "scores": {name: score.to_json() for name, score in self.scores.items()},
            "floor_intervals": {name: [finite(end) for end in ends] for name, ends in self.floor_intervals.items()},
            "pairs": [
                {"saes": list(names), **{key: finite(value) for key, value in pair._asdict().items()}}
                for names, pair in self.pairs.items()
            ],
            "n_alive": dict(self.n_alive),
        }


class Matched(NamedTuple):
    """All pairs of several sets of unit directions."""

    pairs: dict[tuple[str, str], PairStability]
    cosines: dict[str, Float64[Tensor, "n_others n_alive"]]
    """Of each direction with its partner in each other set; 0 where it has none."""

    def found_in(self) -> dict[str, Int[Tensor, " n_alive"]]:
        """In how many sets each direction is found, its own included."""
        return {name: 1 + (cosines >= CLOSE - ROUNDING).sum(0) for name, cosines in self.cosines.items()}

    def by_pair(self) -> dict[str, list[float]]:
        """Each score that is a mean over pairs, pair by pair."""
        return {
            "pw_mcc": [pair.pw_mcc for pair in self.pairs.values()],
            "cross_mmcs": [pair.cross_mmcs for pair in self.pairs.values()],
            SHARED: [pair.shared for pair in self.pairs.values()],
        }

    def shares(self) -> dict[str, Float64[Tensor, " n_all"]]:
        """Each score that is a share of all directions, direction by direction."""
        found = torch.cat(list(self.found_in().values()))
        return {f"found_in_{m}": (found >= m).double() for m in range(2, len(self.cosines) + 1)}

    def values(self) -> dict[str, float]:
        """Every score without its interval."""
        means = {name: float(np.mean(values)) for name, values in self.by_pair().items()}
        return means | {name: float(share.mean()) for name, share in self.shares().items()}

    def scores(self) -> dict[str, Score]:
        """With intervals: over SAEs for means over the pairs of at least three, over latents for the rest."""
        scores = {}
        for name, values in self.by_pair().items():
            low, high = jackknife_interval(list(self.pairs), values)
            scores[name] = Score(value=float(np.mean(values)), low=low, high=high, n=len(values), id=f"{name}/v1")
        return scores | {name: mean_score(share, id=f"{name}/v1") for name, share in self.shares().items()}


def stability(
    decoders: Mapping[str, Float[Tensor, "_ _"]],
    *,
    alive: Mapping[str, Bool[Tensor, " _"]] | None = None,
    seed: int = 0,
    n_floors: int = N_FLOORS,
) -> Stability:
    """Of two or more decoders of one activation space; without `alive`, every latent counts as alive.

    Means over the pairs of three or more SAEs have an interval over SAEs (delete-one jackknife, Arvesen 1969, with
    Student's t); of two there is none. Shares of latents are resampled over latents. The floor repeats everything with
    uniformly random directions, as many as are alive: 1 + n_floors assignments per pair of SAEs, each of 8 bytes per
    pair of latents (2.1 GB for two SAEs of 16,384).
    """
    alive = {name: mask.cpu() for name, mask in (alive or all_alive(decoders)).items()}
    refuse_unusable(decoders, alive, n_floors)
    rows = {name: unit_rows(decoder)[alive[name]] for name, decoder in decoders.items()}
    matched = match_all(rows)
    floors = [
        match_all(random_like(rows, derived_seed(seed, f"stability floor {i}"))).values() for i in range(n_floors)
    ]
    chance = {name: [floor[name] for floor in floors] for name in matched.values()}
    return Stability(
        scores={n: replace(score, floor=float(np.mean(chance[n]))) for n, score in matched.scores().items()},
        floor_intervals={name: prediction_interval(values) for name, values in chance.items()},
        pairs=matched.pairs,
        reproducibility={n: over_all(cosines.mean(0), alive[n], nan) for n, cosines in matched.cosines.items()},
        found_in={name: over_all(found, alive[name], 0) for name, found in matched.found_in().items()},
        n_alive={name: len(directions) for name, directions in rows.items()},
    )


def stability_of(
    saes: Mapping[str, AbstractDictionary], source: ActivationSource, *, n_samples: int, seed: int = 0
) -> Stability:
    """`stability`, where alive means: fired in n_samples held-out samples of `source`."""
    fed, _ = feed(saes, source, n_samples=n_samples, seed=seed, metrics=lambda: [Sparsity()])
    alive = {}
    for name, (counted,) in fed.items():
        assert isinstance(counted, Sparsity)
        alive[name] = counted.firing.alive()
    return stability({name: sae.decoder_directions() for name, sae in saes.items()}, alive=alive, seed=seed)


def match_all(rows: Mapping[str, Float64[Tensor, "_ d_in"]]) -> Matched:
    """Every pair of sets of unit directions."""
    pairs = {}
    cosines: dict[str, list[Tensor]] = {name: [] for name in rows}
    for first, second in combinations(rows, 2):
        pairs[first, second], mine, theirs = match_pair(rows[first], rows[second])
        cosines[first].append(mine)
        cosines[second].append(theirs)
    return Matched(pairs, {name: torch.stack(found) for name, found in cosines.items()})


def match_pair(
    first: Float64[Tensor, "n_first d_in"], second: Float64[Tensor, "n_second d_in"]
) -> tuple[PairStability, Float64[Tensor, " n_first"], Float64[Tensor, " n_second"]]:
    """What the pair shares, and of each direction the cosine with its partner."""
    mine, theirs = first.new_zeros(len(first)), second.new_zeros(len(second))
    if not len(first) or not len(second):
        return PairStability(nan, nan, nan), mine, theirs
    left, right, cosine = assign(first, second)
    mine[left], theirs[right] = cosine, cosine
    nearest_mine, nearest_theirs = first.new_zeros(len(first)), second.new_full((len(second),), -1.0)
    for block, cosines in cosine_blocks(first, second):
        nearest_mine[block] = cosines.max(1).values
        nearest_theirs = torch.maximum(nearest_theirs, cosines.max(0).values)
    pair = PairStability(
        pw_mcc=float(cosine.mean()),
        cross_mmcs=float((nearest_mine.mean() + nearest_theirs.mean()) / 2),
        shared=float((cosine >= CLOSE - ROUNDING).double().mean()),
    )
    return pair, mine, theirs


def jackknife_interval(pairs: Sequence[tuple[str, str]], values: Sequence[float]) -> Interval:
    """Of a mean over all pairs of SAEs: SAEs are what varies, and each takes part in several pairs."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    n, mean = len(names), float(np.mean(values))
    if n < MIN_SEEDS or not np.isfinite(mean):
        return None, None
    without = [np.mean([v for pair, v in zip(pairs, values, strict=True) if name not in pair]) for name in names]
    _, low, high = interval_over_seeds([n * mean - (n - 1) * float(value) for value in without])
    centre = (low + high) / 2  # the mean of the pseudo-values: the score itself, but for rounding
    return low - centre + mean, high - centre + mean


def prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the next draw lies with 95 %: mean -+ t s sqrt(1 + 1 / n)."""
    mean, low, high = interval_over_seeds(values)
    half = (high - low) / 2 * sqrt(len(values) + 1)  # the t-interval of the mean has half-width t s / sqrt(n)
    return mean - half, mean + half


def random_like(rows: Mapping[str, Float64[Tensor, "_ d_in"]], seed: int) -> dict[str, Float64[Tensor, "_ d_in"]]:
    """Uniformly random directions, as many as there are of each."""
    return {
        name: unit_rows(random_directions(*directions.shape, seed=derived_seed(seed, name)))
        for name, directions in rows.items()
    }


def finite(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if isnan(value) else value


def over_all(values: Tensor, alive: Bool[Tensor, " d_sae"], otherwise: int | float) -> Tensor:
    """Values of the alive latents at their places among all."""
    spread = torch.full((len(alive),), otherwise, dtype=values.dtype)
    spread[alive] = values
    return spread


def all_alive(decoders: Mapping[str, Float[Tensor, "_ _"]]) -> dict[str, Bool[Tensor, " _"]]:
    """No latent left out."""
    return {name: torch.ones(len(rows), dtype=torch.bool) for name, rows in decoders.items()}


def refuse_unusable(
    decoders: Mapping[str, Float[Tensor, "_ _"]], alive: Mapping[str, Bool[Tensor, " _"]], n_floors: int
) -> None:
    """At least two decoders of one space, a mask for each, and a floor with a spread."""
    if len(decoders) < 2:
        raise ValueError(f"stability: {len(decoders)} SAE(s) given, but it is a relation of at least 2.")
    widths = {name: rows.shape[1] for name, rows in decoders.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"stability: d_in differs: {widths}. Compare SAEs of the same activations.")
    sizes = {name: len(rows) for name, rows in decoders.items()}
    masks = {name: len(mask) for name, mask in alive.items()}
    if sizes != masks:
        raise ValueError(f"stability: latents {sizes}, but alive given for {masks}. Give one mask for each SAE.")
    if n_floors < 2:
        raise ValueError(f"stability: n_floors={n_floors} asked, but an interval needs at least 2.")
