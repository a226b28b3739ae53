"""Every SAE variant on worlds whose features are known: what each recovers, at one sparsity, and how soon.

Worlds: independent (256 features in 64 dimensions, L0 6), correlated (the same in clusters that fire together) and
hierarchical (80 features, children fire only with their parent, L0 1.44). Selecting variants get k, penalised ones are
steered to it. The table (`table.md` in the run's folder) is the one in docs/training.md. Recovery after 1 million
samples of the independent world, seed 0: TopK and TanhJumpRelu .994, BatchTopK .992, none but AbsTopK (.71) below .956.

    sae-toolkit run zoo_on_toy --output runs/zoo
    sae-toolkit run zoo_on_toy --output runs/zoo_h --world hierarchical --n_seeds 3
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Literal

from sae_toolkit import AbstractSAE, Score, TrainConfig, train
from sae_toolkit.activations import ActivationSource, SuperpositionSource
from sae_toolkit.ground_truth import correlated_world, dataset_a, hierarchical_world
from sae_toolkit.metrics import over_seeds, score_recovery
from sae_toolkit.metrics.ladder import Ladder
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.report import Expectation, Report, build_report
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """One world, every variant, any number of seeds."""

    world: Literal["independent", "correlated", "hierarchical"] = "independent"
    """How the features of the world fire."""
    variants: tuple[str, ...] = ()
    """Names without "SAE", such as TopK; none: every variant of the package that reads and reconstructs one site."""
    n_seeds: int = 1
    """Runs over consecutive seeds; scores become means with intervals over seeds."""
    train: TrainConfig = TrainConfig(n_samples=1_000_000)
    """Budget, learning and the seed of everything."""
    eval_samples: int = 10_000
    """Held-out samples behind every score."""
    probe_steps: int = 100
    """Optimizer updates between two looks at the recovery, which date the .95."""


SMALL = TrainConfig(n_samples=120_000, batch_size=128)
SMOKE = Config(train=SMALL, variants=("TopK", "JumpRelu", "Gated", "MatchingPursuit"), eval_samples=2_000)
WORLDS = {"independent": (dataset_a, 6), "correlated": (correlated_world, 6), "hierarchical": (hierarchical_world, 2)}
COLUMNS = ("mean_matched_cosine", "recall_at_0.9", "l0", "explained_variance", "dead_fraction", "samples_to_0.95")


def make_source(config: Config, run: RunFolder) -> SuperpositionSource:
    """The world of one seed."""
    return SuperpositionSource(WORLDS[config.world][0](config.train.seed))


def make_saes(config: Config, source: ActivationSource) -> dict[str, AbstractSAE]:
    """One SAE of every variant, as wide as the world has features."""
    k, size = WORLDS[config.world][1], {"d_in": source.d_in, "d_sae": len(source.feature_names or ())}
    saes = {}
    for name, variant in sorted(AbstractSAE.variants.items()):
        fields = variant.Config.__dataclass_fields__
        if variant.__module__.startswith("sae_toolkit.") and not {"d_out", "site_widths"} & set(fields):
            sparsity = {key: value for key, value in {"k": k, "wanted_l0": float(k)}.items() if key in fields}
            saes[name.removesuffix("SAE")] = variant(variant.Config(**size, **sparsity), seed=config.train.seed)
    if strangers := set(config.variants) - set(saes):
        raise ValueError(f"zoo_on_toy: variants {sorted(strangers)} asked; choose among {', '.join(saes)}.")
    return {name: saes[name] for name in config.variants or saes}


def main(config: Config, run: RunFolder) -> Report:
    """Trains and scores once per seed; the figures show the last seed."""
    k, ladders = WORLDS[config.world][1], []
    for seed in range(config.train.seed, config.train.seed + config.n_seeds):
        part = run if config.n_seeds == 1 else run.part(f"seed_{seed}")
        seeded = replace(config, train=replace(config.train, seed=seed))
        source = make_source(seeded, part)
        saes = make_saes(seeded, source)
        steered = replace(config.train.learning, target_l0=float(k))
        learning = {name: steered for name, sae in saes.items() if sae.has_sparsity_penalty}

        def recovery(
            named: Mapping[str, AbstractSAE], source: SuperpositionSource = source
        ) -> dict[str, dict[str, float]]:
            matched = {n: match_latents(source.directions, sae.decoder_directions()) for n, sae in named.items()}
            return {name: {"recovery": float(found.cosine.clamp_min(0).mean())} for name, found in matched.items()}

        watch = {"probe": recovery, "probe_every_steps": config.probe_steps}
        train(saes, source, seeded.train, learning=learning, **watch, **part.training())
        scores = score_recovery(saes, source, k=k, n_samples=config.eval_samples, seed=seed)
        dated = {name: scores[name] | {"samples_to_0.95": samples_to(name, 0.95, part)} for name in saes}
        ladders.append(Ladder(dated, {f"floor/{name}": scores[name] for name in ("random", "k-means")}))
    ladder = over_seeds(ladders)
    write_table(ladder, run.folder / "table.md")
    return build_report(config, part, saes, source, ladder)


def samples_to(name: str, recovery: float, run: RunFolder) -> Score:
    """Samples after which the probe first saw that mean matched cosine; NaN where it never did."""
    seen = [(r["samples"], r["probe"][name]["recovery"]) for r in run.memory.records if "probe" in r]
    first = next((samples for samples, found in seen if found >= recovery), nan)
    return Score(value=float(first), n=len(seen), id=f"samples_to_{recovery}/v1")


def write_table(ladder: Ladder, path: Path) -> None:
    """One row per SAE, as Markdown."""
    rows = [["SAE", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    for name, scores in ladder.saes.items():
        rows.append([name, *(f"{scores[column].value:.4g}" for column in COLUMNS)])
    path.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")


EXPECTED = (
    Expectation(score="mean_matched_cosine", sae="TopK", at_least=0.98),
    Expectation(score="mean_matched_cosine", sae="BatchTopK", at_least=0.95),
    Expectation(score="mean_matched_cosine", sae="JumpRelu", at_least=0.95),
    Expectation(score="mean_matched_cosine", sae="Gated", at_least=0.94),
    Expectation(score="mean_matched_cosine", sae="MatryoshkaBatchTopK", at_least=0.9),
    Expectation(score="dead_fraction", sae="JumpRelu", at_most=0.05),
    Expectation(score="mean_matched_cosine", sae="k-means", at_least=0.8, at_most=0.95),
)
SMOKE_EXPECTED = (
    Expectation(score="mean_matched_cosine", sae="TopK", at_least=0.5),
    Expectation(score="mean_matched_cosine", sae="MatchingPursuit", at_least=0.7),
    Expectation(score="mean_matched_cosine", sae="random", at_most=0.36),
)
