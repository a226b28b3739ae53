"""Heads that read what another head writes stand out: 1/4 against 1/8, fifteen standard deviations above chance.

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits", two-layer transformers): Q-, K- and
V-composition scores. Weights are planted, not trained: whether training makes heads compose is another question, and a
model that solves a task need not show it. Random pairs of heads score d_model ** -1/2; a head whose keys read exactly
the d_head dimensions that an earlier one writes scores d_head ** -1/2. Also: copying scores that are known (W_E W_E^T
copies, its negative anti-copies), how much of what one part writes another reads, and a head that clears memory.

    sae-toolkit run composition_scores --output runs/composition
"""

from dataclasses import dataclass

import torch

from sae_toolkit.activations import random_heads, with_planted_composition
from sae_toolkit.analysis import (
    Factored,
    chance_overlap,
    cleared_dimensions,
    composition_scores,
    ov_circuit,
    overlap,
    positivity,
    qk_circuit,
    random_composition,
    random_copying_scores,
    read_space,
    written_space,
)
from sae_toolkit.report import (
    Expectation,
    Headline,
    NamedScore,
    Report,
    build_experiment_report,
    heat_map_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class Config:
    """Random heads of several sizes, and plants among heads of the first."""

    sizes: tuple[tuple[int, int], ...] = ((64, 16), (256, 64), (768, 64))
    """(d_model, d_head) of the random pairs; plants use the first."""
    n_pairs: int = 200
    """Random pairs behind each floor."""
    n_plants: int = 50
    """Planted pairs of each kind."""
    n_copying: int = 2000
    """Random heads behind the copying score of chance."""
    seed: int = 0
    """Of all weights."""


SMOKE = Config(sizes=((64, 16), (256, 64)), n_pairs=60, n_plants=10, n_copying=300)
HEADLINES = (
    Headline(name="composition", label="Composition", question="How much does a head read of what another writes?"),
    Headline(name="smallest_z", label="z", question="Standard deviations of the weakest plant above chance"),
)
WRITER, READER = (0, 1), (1, 2)


def planted(config: Config, kind: str, index: int) -> torch.Tensor:
    """Scores of one kind among two layers of heads of which one pair composes, `[n_heads n_heads]`."""
    d_model, d_head = config.sizes[0]
    seed = 1000 * config.seed + index
    heads = random_heads(n_layers=2, n_heads=4, d_model=d_model, d_head=d_head, seed=seed)
    changed = with_planted_composition(heads, kind, WRITER, READER, seed=seed)
    scores: torch.Tensor = composition_scores(changed)._asdict()[kind][0, :, 1]
    return scores


def copying_and_memory(config: Config) -> list[NamedScore]:
    """Cases whose answer is known."""
    d_model, d_head = config.sizes[0]
    generator = generator_for(config.seed, "known copying")
    W = torch.randn(d_model, d_head, generator=generator)
    chance = random_copying_scores(d_model, d_head, config.n_copying, generator)
    heads = random_heads(n_layers=2, n_heads=4, d_model=d_model, d_head=d_head, seed=config.seed)
    composed = with_planted_composition(heads, "k", WRITER, READER, seed=config.seed)
    writes, reads = (written_space(ov_circuit(composed, 0, (head,))) for head in WRITER), qk_circuit(composed, *READER)
    spaces = dict(zip(("stranger", "writer"), writes, strict=True))
    overlaps = {name: overlap(space, read_space(reads.transposed)) for name, space in spaces.items()}
    basis = torch.linalg.qr(W).Q
    rows = scores_of("copying", {"of W W^T": positivity(Factored(W, W.T)), "of -W W^T": positivity(Factored(W, -W.T))})
    rows += scores_of("random heads", {"copying_mean": float(chance.mean()), "copying_sd": float(chance.std())})
    rows += scores_of("memory", {f"overlap_with_{name}": value for name, value in overlaps.items()})
    rows += scores_of("memory", {"chance_overlap": chance_overlap(*([spaces["writer"]] * 2))})
    return rows + scores_of("memory", {"cleared_dimensions": cleared_dimensions(Factored(basis, -basis.T))})


def main(config: Config, run: RunFolder) -> Report:
    """Chance, plants, and what else is known."""
    floors = {
        size: random_composition(*size, config.n_pairs, generator_for(config.seed, f"random pairs {size}"))
        for size in config.sizes
    }
    scores = [
        row
        for (d, _), floor in floors.items()
        for row in scores_of(f"random, d={d}", {"composition": floor.mean, "sd": floor.sd}, n=config.n_pairs)
    ]
    tables = {}
    for kind in ("q", "k", "v"):
        found = torch.stack([planted(config, kind, index) for index in range(config.n_plants)])
        plants = found[:, WRITER[1], READER[1]]
        z = floors[config.sizes[0]].z(plants)
        values = {"composition": float(plants.mean()), "sd": float(plants.std()), "smallest_z": float(z.min())}
        scores += scores_of(f"planted {kind}", values, n=config.n_plants)
        tables[f"{kind.upper()}-composition"] = found[0]
    scores += copying_and_memory(config)
    words = "Scores between heads of two layers; one pair was planted, and only it should stand out."
    figures = [heat_map_panel("Composition", words, tables, row_label="earlier head", column_label="later head")]
    described = {"name": "Gaussian heads with planted pairs", "sizes": [list(size) for size in config.sizes]}
    return build_experiment_report(config, run, scores, figures, description=described, headlines=HEADLINES)


SMOKE_EXPECTED = (
    Expectation(score="composition", sae="random, d=64", at_least=0.122, at_most=0.130),
    Expectation(score="composition", sae="random, d=256", at_least=0.0605, at_most=0.0645),
    *(
        expectation
        for kind in ("q", "k", "v")
        for expectation in (
            Expectation(score="composition", sae=f"planted {kind}", at_least=0.243, at_most=0.263),
            Expectation(score="smallest_z", sae=f"planted {kind}", at_least=8.0),
        )
    ),
    Expectation(score="of W W^T", sae="copying", at_least=0.99999, at_most=1.00001),
    Expectation(score="of -W W^T", sae="copying", at_least=-1.00001, at_most=-0.99999),
    Expectation(score="copying_mean", sae="random heads", at_least=-0.03, at_most=0.03),
    Expectation(score="copying_sd", sae="random heads", at_least=0.09, at_most=0.125),
    Expectation(score="overlap_with_writer", sae="memory", at_least=0.9999, at_most=1.0001),
    Expectation(score="overlap_with_stranger", sae="memory", at_least=0.15, at_most=0.35),
    Expectation(score="cleared_dimensions", sae="memory", at_least=16.0, at_most=16.0),
)
EXPECTED = (*SMOKE_EXPECTED, Expectation(score="composition", sae="random, d=768", at_least=0.0355, at_most=0.0375))
