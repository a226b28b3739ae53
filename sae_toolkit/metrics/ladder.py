"""The control ladder: the scores of SAEs with the floors and ceilings that belong to them, in one call."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float

from sae_toolkit.activations.named_sites import sites_read, targets_read
from sae_toolkit.activations.place import Place
from sae_toolkit.activations.source import ActivationSource, KnownFeatures, Site
from sae_toolkit.activations.splicing_site import site_of
from sae_toolkit.metrics.components import kmeans_directions
from sae_toolkit.metrics.control_store import ControlStore
from sae_toolkit.metrics.controls import (
    CEILING,
    FLOOR,
    FixedDictionary,
    floor_directions,
    random_directions,
    standard_controls,
)
from sae_toolkit.metrics.evaluate import Scores, default_metrics, evaluate, with_reference
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.model_loss import LOSS_TOKENS
from sae_toolkit.metrics.probe import linear_probe
from sae_toolkit.metrics.reconstruction import Reconstruction
from sae_toolkit.metrics.recovery import FeatureRecovery
from sae_toolkit.metrics.scoring import Scoring, silent
from sae_toolkit.metrics.sparsity import Sparsity
from sae_toolkit.metrics.transcoder_controls import own_directions, rebuilds, transcoder_floors
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE
from sae_toolkit.saes.coders import MatchingPursuit, RefittedTopK
from sae_toolkit.saes.normalise import Normaliser, SitewiseNormaliser
from sae_toolkit.saes.sparse_inference import SparseInference
from sae_toolkit.seeding import derived_seed

CONTROL_SAMPLES = 50_000
"""Train-split samples that data-driven controls (k-means, components, rows) are made from."""


@dataclass(frozen=True)
class Ladder:
    """Scores of SAEs, each with its floor and ceiling, and of every control behind them."""

    saes: Mapping[str, Scores]
    controls: Mapping[str, Scores]
    """Keys start with "floor/" or "ceiling/"; they end with " k=..." where SAEs of several sparsities were scored, and
    with " at ..." where SAEs of several sites were."""
    excluded: Mapping[str, int] = field(default_factory=dict)
    """Samples that the source left out while the SAEs were scored, by reason."""


def score_with_controls(
    saes: Mapping[str, AbstractSAE],
    source: ActivationSource,
    *,
    n_samples: int,
    seed: int = 0,
    leave_out: Collection[str] = (),
    sites: Mapping[str, Site] | None = None,
    targets: Mapping[str, str] | None = None,
    loss_tokens: int = LOSS_TOKENS,
    metrics: Callable[..., list[Metric]] = default_metrics,
    store: ControlStore | None = None,
    say: Callable[[str], None] = silent,
) -> Ladder:
    """Scores every SAE on the eval split, next to controls as wide and as sparse as itself.

    SAEs of one site, one width and about one L0 share their controls. The floor of each score is the random
    dictionary's; the ceiling that of the true directions with non-negative OMP or, where they are unknown, of the SAE's
    own directions. `sites` says which of the source's sites each SAE reads (several, as a tuple, for a crosscoder),
    `targets` which one a transcoder predicts (its controls: `transcoder_controls.py`); the other arguments are those of
    `Scoring`.
    """
    placed = saes_by_place(saes, source, sites, targets)
    sample = train_sample(source, seed=seed)
    scoring = Scoring(
        n_samples=n_samples,
        seed=seed,
        leave_out=leave_out,
        loss_tokens=loss_tokens,
        metrics=metrics,
        store=store,
        say=say,
    )
    ladders = {place: score_at_place(there, source, place, sample, scoring) for place, there in placed.items()}
    scores = {name: found for ladder in ladders.values() for name, found in ladder.saes.items()}
    controls = {
        key if len(ladders) == 1 else f"{key} at {place}": found
        for place, ladder in ladders.items()
        for key, found in ladder.controls.items()
    }
    # each site's pass reads the same samples, so the first one's count is the count
    excluded = next(iter(ladders.values())).excluded
    return Ladder({name: scores[name] for name in saes}, controls, excluded)


def saes_by_place(
    saes: Mapping[str, AbstractSAE],
    source: ActivationSource,
    sites: Mapping[str, Site] | None,
    targets: Mapping[str, str] | None = None,
) -> dict[Place, dict[str, AbstractSAE]]:
    """The SAEs of each place, in their order."""
    if not saes:
        raise ValueError("score_with_controls: no SAE given; pass a mapping of names to SAEs.")
    read, predicted = sites_read(saes, source, sites), dict(targets or {})
    targets_read(saes, source, targets)
    placed: dict[Place, dict[str, AbstractSAE]] = {}
    for name, sae in saes.items():
        if sae.transcodes != (name in predicted):
            does = "predicts another site: say which" if sae.transcodes else "rebuilds what it reads: give it none"
            raise ValueError(
                f"score_with_controls: targets={dict(targets or {})} given, but {type(sae).__name__} {name!r} {does}."
            )
        place = Place(read[name], predicted.get(name))
        if place.target is not None and sae.d_out != source.sites[place.target]:
            raise ValueError(
                f"score_with_controls: transcoder {name!r} predicts d_out={sae.d_out} numbers, but {place.target} is "
                f"{source.sites[place.target]} wide. Give the target it was trained on."
            )
        placed.setdefault(place, {})[name] = sae
    return placed


def score_at_place(
    saes: Mapping[str, AbstractSAE],
    source: ActivationSource,
    place: Place,
    sample: Float[torch.Tensor, "batch d_all"],
    scoring: Scoring,
) -> Ladder:
    """The ladder of SAEs of one place; data-driven controls are made from `sample`, which holds all sites."""
    seen = place.seen(source)
    scores, excluded = scoring.score(dict[str, AbstractDictionary](saes), seen)
    truth = seen if isinstance(seen, KnownFeatures) and place.target is None else None
    scoring.say("building floors")
    x, units = sample[:, source.columns(place.site)], joint_units(source, place.site, sample)
    floors_of = {
        w: floor_directions(
            x if units is None else units.normalise(x),
            w,
            seed=scoring.seed,
            leave_out=scoring.leave_out,
            store=scoring.store,
        )
        for w in {sae.d_sae for sae in saes.values()}
    }
    referenced: dict[str, Scores] = {}
    controls: dict[str, Scores] = {}
    groups = alike(saes, scores)
    for (d_sae, k), names in groups.items():
        there, floors = {name: saes[name] for name in names}, floors_of[d_sae]
        if place.target is None:
            found = score_controls(there, seen, x, scoring, k=k, floors=floors, units=units)
        else:
            y, written = sample[:, source.columns(place.target)], site_of(source, place.target)
            built = transcoder_floors(there[names[0]], x, y, k=k, seed=scoring.seed, floors=floors)
            pursued = {own_ceiling(name): own_directions(sae, k) for name, sae in there.items() if rebuilds(sae, x)}
            found = {**scoring.score_controls(built, seen), **scoring.score_controls(pursued, written)}
        suffix = f" k={k}" if len({sparsity for _, sparsity in groups}) > 1 else ""
        suffix += f" width={d_sae}" if len(floors_of) > 1 else ""
        own = {own_ceiling(name) for name in names}
        controls |= {key if key in own else key + suffix: values for key, values in found.items()}
        for name in names:
            ceiling = found.get(own_ceiling(name) if truth is None else CEILING)
            referenced[name] = with_reference(scores[name], found[FLOOR], ceiling)
    if truth is not None:
        controls["ceiling/linear_probe"] = linear_probe(truth, seed=scoring.seed)
    return Ladder(referenced, controls, excluded)


def score_controls(
    saes: Mapping[str, AbstractSAE],
    seen: ActivationSource,
    x: Float[torch.Tensor, "batch d_in"],
    scoring: Scoring,
    *,
    k: int,
    floors: Mapping[str, Float[torch.Tensor, "_ d_in"]],
    units: Normaliser | None,
) -> dict[str, Scores]:
    """Scores of the controls of SAEs that are alike."""
    truth = seen if isinstance(seen, KnownFeatures) else None
    built = standard_controls(
        next(iter(saes.values())),
        x,
        k=k,
        seed=scoring.seed,
        floors=floors,
        directions=None if truth is None else truth.directions,
        bias=None if truth is None else truth.bias,
        units=units,
    )
    pursued = {own_ceiling(name): SparseInference(sae, MatchingPursuit(k)) for name, sae in saes.items()}
    return dict(scoring.score_controls(built | pursued, seen))


def own_ceiling(name: str) -> str:
    """The name of the control that uses an SAE's own directions as well as can be."""
    return f"ceiling/{name} with OMP"


def joint_units(
    source: ActivationSource, site: Site, sample: Float[torch.Tensor, "batch d_all"]
) -> SitewiseNormaliser | None:
    """Units in which several sites count alike; None for one site, whose controls do not depend on its units."""
    if isinstance(site, str):
        return None
    units = SitewiseNormaliser("mean_scalar", [source.sites[name] for name in site])
    units.fit_(sample[:, source.columns(site)])
    return units


def score_recovery(
    saes: Mapping[str, AbstractSAE], source: KnownFeatures, *, k: int, n_samples: int, seed: int = 0
) -> dict[str, Scores]:
    """Reconstruction, sparsity and recovery of SAEs of one width beside "random" and "k-means" directions.

    A small part of `score_with_controls`, in seconds, for sweeps over many sources. Both rivals are as wide as the
    first SAE and choose the top k of their directions; the random ones are everyone's floor.
    """
    sample = train_sample(source, seed=seed)
    width = next(iter(saes.values())).d_sae
    rivals = {
        "random": random_directions(width, source.d_in, seed=seed),
        "k-means": kmeans_directions(sample, width, seed=seed),
    }
    coder, mean = RefittedTopK(k), sample.mean(0)
    built = {name: FixedDictionary(rows, coder=coder, offset=mean) for name, rows in rivals.items()}
    scores = evaluate(
        {**saes, **built},
        source,
        n_samples=n_samples,
        seed=seed,
        metrics=lambda: [Reconstruction(), Sparsity(), FeatureRecovery(source.directions)],
    )
    return {name: with_reference(found, scores["random"]) for name, found in scores.items()}


def alike(saes: Mapping[str, AbstractSAE], scores: Mapping[str, Scores]) -> dict[tuple[int, int], list[str]]:
    """Names of the SAEs that share their controls, by width and number of atoms."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name, sae in saes.items():
        groups.setdefault(group_of(sae.d_sae, scores[name]["l0"].value, groups), []).append(name)
    return groups


def group_of(d_sae: int, l0: float, groups: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Width and atoms of an SAE's controls: those of an earlier SAE as wide and, within 10 %, as sparse; or its own."""
    for width, k in groups:
        if width == d_sae and abs(l0 - k) <= 0.1 * k:
            return width, k
    return d_sae, max(1, round(l0))


def train_sample(source: ActivationSource, *, seed: int) -> Float[torch.Tensor, "_ d_in"]:
    """Train-split activations from a stream of their own."""
    stream = source.stream(1024, seed=derived_seed(seed, "controls"), split="train")
    return torch.cat([next(stream).activations.float().cpu() for _ in range(-(-CONTROL_SAMPLES // 1024))])


def with_controls(
    ladder: Ladder,
    controls: Mapping[str, Scores],
    *,
    ceiling: Scores | None = None,
    more: Mapping[str, Scores] | None = None,
) -> Ladder:
    """The ladder with more controls, and with those of `more` scores of its SAEs that it does not have.

    `ceiling` becomes the ceiling of those of the SAEs' scores that it has, too.
    """
    saes = {name: {**(more or {}).get(name, {}), **found} for name, found in ladder.saes.items()}
    for name, found in saes.items():
        shared = {key: score for key, score in found.items() if key in (ceiling or {})}
        saes[name] = {**found, **with_reference(shared, None, ceiling)}
    return replace(ladder, saes=saes, controls={**ladder.controls, **controls})
