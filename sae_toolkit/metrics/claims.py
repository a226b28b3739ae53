"""What may be claimed of an SAE: score, floor, ceiling, paired test and verdict over at least three seeds, in one call.

A difference is claimed only if its paired 95 % interval excludes 0 and the better value lies above the upper end of the
floor's interval. Recovery scores without this mistake chance for success (arXiv 2602.14111).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

from sae_toolkit.activations.source import ActivationSource, KnownFeatures
from sae_toolkit.metrics.controls import FLOOR, FLOORS, FixedDictionary, floor_directions
from sae_toolkit.metrics.ladder import train_sample
from sae_toolkit.metrics.paired import Comparison, compare_tables, score_units, table_of
from sae_toolkit.metrics.replication import MIN_SEEDS, Design, Estimate, estimate
from sae_toolkit.metrics.score_units import ScoreUnits, Unit
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE
from sae_toolkit.saes.coders import MatchingPursuit
from sae_toolkit.saes.sparse_inference import SparseInference

Verdict = Literal["above floor", "indistinguishable", "below floor"]
LESS_IS_BETTER = frozenset({"fvu", "nmse", "ce_spliced", "kl_spliced"})
DESCRIPTIVE = frozenset({"l0", "ce_clean", "ce_zero", "ce_mean"})
"""Neither good nor bad, or the same for every dictionary: nothing is claimed of them."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One score of one variant over seeds, with all that a claim about it rests on."""

    score: str
    id: str
    """Definition of the score."""
    unit: Unit
    """What the score is a mean of."""
    value: Estimate
    floor: Estimate
    """Of the control, one per seed."""
    ceiling: Estimate | None
    against_floor: Comparison
    """SAE minus control, seed by seed and unit by unit."""
    verdict: Verdict
    """"Above" is better than the floor, also where less is better."""
    rival: Estimate | None = None
    against_rival: Comparison | None = None
    """SAE minus rival."""
    difference_claimed: bool | None = None
    """Whether that difference may be claimed; None without a rival."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, NaN as None."""
        return {
            "score": self.score,
            "id": self.id,
            "unit": self.unit,
            "value": estimate_json(self.value),
            "floor": estimate_json(self.floor),
            "ceiling": None if self.ceiling is None else estimate_json(self.ceiling),
            "against_floor": self.against_floor.to_json(),
            "verdict": self.verdict,
            "rival": None if self.rival is None else estimate_json(self.rival),
            "against_rival": None if self.against_rival is None else self.against_rival.to_json(),
            "difference_claimed": self.difference_claimed,
        }


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Every score's claim, and the data behind them."""

    by_score: dict[str, Claim]
    control: str
    """What the floor is: "floor/random" or another of the controls."""
    n_samples: int
    """Held-out samples behind every seed's scores."""
    data_sha256: str
    """Of what the sources say of themselves, the evaluation seed and n_samples."""

    def to_json(self) -> list[dict[str, Any]]:
        """A row per score that can stand alone."""
        about = {"control": self.control, "n_samples": self.n_samples, "data_sha256": self.data_sha256}
        return [{**claim.to_json(), **about} for claim in self.by_score.values()]


def claims(
    saes: Sequence[AbstractSAE],
    sources: ActivationSource | Sequence[ActivationSource],
    *,
    n_samples: int,
    rivals: Sequence[AbstractDictionary] | None = None,
    control: str = FLOOR,
    seed: int = 0,
) -> Claims:
    """The same variant trained with several seeds, against a control and perhaps rivals, seed by seed.

    One source: all seeds are judged on the same features and samples. One source per seed: each is a world of its own.

    The control is drawn anew for each seed, as wide as the SAE, with pursuit of as many atoms as the SAE has active
    latents; the ceiling is the true directions with twice as many or, where they are unknown, the SAE's own ones with
    pursuit. Several verdicts of one call are not corrected for their number (see `benjamini_hochberg`).
    """
    refuse_few_seeds("claims", len(saes))
    if control not in FLOORS:
        raise ValueError(f"claims: control={control!r} given; choose among {', '.join(FLOORS)}.")
    shared = isinstance(sources, ActivationSource)
    by_seed = [sources] * len(saes) if isinstance(sources, ActivationSource) else list(sources)
    if len(by_seed) != len(saes) or (rivals is not None and len(rivals) != len(saes)):
        raise ValueError(
            f"claims: {len(saes)} SAEs, {len(by_seed)} sources and {len(rivals or saes)} rivals given. Give one rival "
            f"per seed, and one source for all or one per seed."
        )
    found = []
    for i, (sae, source) in enumerate(zip(saes, by_seed, strict=True)):
        judged: dict[str, AbstractDictionary] = {"sae": sae} if rivals is None else {"sae": sae, "rival": rivals[i]}
        units = score_units(judged, source, n_samples=n_samples, seed=seed)
        k = max(1, round(float(units["sae"]["l0"].values.mean())))
        known = references(sae, source, k, control, seed=seed + i)
        found.append(units | score_units(known, source, n_samples=n_samples, seed=seed))
    by_score = {
        name: claim(
            name,
            sae=[units["sae"][name] for units in found],
            floor=[units["floor"][name] for units in found],
            ceiling=[units["ceiling"][name] for units in found],
            rival=None if rivals is None else [units["rival"][name] for units in found],
            design="crossed" if shared else "nested",
        )
        for name in found[0]["sae"]
        if name not in DESCRIPTIVE
    }
    sha256 = data_hash(by_seed, n_samples=n_samples, seed=seed)
    return Claims(by_score=by_score, control=control, n_samples=n_samples, data_sha256=sha256)


def claim(
    score: str,
    *,
    sae: Sequence[ScoreUnits],
    floor: Sequence[ScoreUnits],
    ceiling: Sequence[ScoreUnits] | None = None,
    rival: Sequence[ScoreUnits] | None = None,
    design: Design = "crossed",
) -> Claim:
    """The verdict on units that are known already, one entry per seed; `design` as in `replication`."""
    refuse_few_seeds("claim", len(sae))
    sign = -1.0 if score in LESS_IS_BETTER else 1.0
    mine, chance, id = table_of(sae), table_of(floor), sae[0].id
    value, floored = estimate(mine, design=design), estimate(chance, design=design)
    against_floor = compare_tables(mine, chance, design=design, id=id)
    theirs, against_rival, claimed = None, None, None
    if rival is not None:
        theirs = estimate(table_of(rival), design=design)
        against_rival = compare_tables(mine, table_of(rival), design=design, id=id)
        claimed = may_be_claimed(value, theirs, floored, against_rival, sign)
    return Claim(
        score=score,
        id=id,
        unit=sae[0].unit,
        value=value,
        floor=floored,
        ceiling=None if ceiling is None else estimate(table_of(ceiling), design=design),
        against_floor=against_floor,
        verdict=verdict(value, floored, against_floor, sign),
        rival=theirs,
        against_rival=against_rival,
        difference_claimed=claimed,
    )


def verdict(value: Estimate, floor: Estimate, difference: Comparison, sign: float) -> Verdict:
    """The rule of this file's first lines; `sign` is -1 where less is better."""
    if difference.excludes_zero and floor.low is not None and floor.high is not None:
        worst, best = sorted((sign * floor.low, sign * floor.high))
        if sign * difference.difference > 0 and sign * value.value > best:
            return "above floor"
        if sign * difference.difference < 0 and sign * value.value < worst:
            return "below floor"
    return "indistinguishable"


def may_be_claimed(mine: Estimate, theirs: Estimate, floor: Estimate, difference: Comparison, sign: float) -> bool:
    """Whether the paired interval excludes 0 and the better of the two lies above the floor's interval."""
    if not difference.excludes_zero or floor.low is None or floor.high is None:
        return False
    best = max(sign * mine.value, sign * theirs.value)
    return best > max(sign * floor.low, sign * floor.high)


def references(
    sae: AbstractSAE, source: ActivationSource, k: int, control: str, *, seed: int
) -> dict[str, AbstractDictionary]:
    """The control as "floor" and what knows most as "ceiling"."""
    sample = train_sample(source, seed=seed)
    others = [name for name in FLOORS if name != control]
    built = floor_directions(sample, sae.d_sae, seed=seed, leave_out=others)
    if control not in built:
        raise ValueError(f"claims: control={control!r} asked, but it takes activations that are nowhere negative.")
    rows = built[control]
    ceiling: AbstractDictionary = SparseInference(sae, MatchingPursuit(k))
    if isinstance(source, KnownFeatures):
        ceiling = FixedDictionary(source.directions, coder=MatchingPursuit(2 * k), offset=source.bias)
    return {"floor": FixedDictionary(rows, coder=MatchingPursuit(k), offset=sample.mean(0)), "ceiling": ceiling}


def data_hash(sources: Sequence[ActivationSource], *, n_samples: int, seed: int) -> str:
    """SHA-256 of the sources' descriptions, the evaluation seed and the number of samples, as canonical JSON."""
    content = {"sources": [source.describe() for source in sources], "n_samples": n_samples, "seed": seed}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def estimate_json(found: Estimate) -> dict[str, Any]:
    """JSON-ready, NaN as None."""
    return {k: None if isinstance(v, float) and isnan(v) else v for k, v in found._asdict().items()}


def refuse_few_seeds(what: str, n_seeds: int) -> None:
    """No spread over seeds, no claim."""
    if n_seeds < MIN_SEEDS:
        raise ValueError(
            f"{what}: {n_seeds} seed(s) given, but at least {MIN_SEEDS} are needed: one SAE tells nothing of the next "
            f"seed's. Train the same variant with {MIN_SEEDS} or more seeds."
        )
