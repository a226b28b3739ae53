"""Correlated features lie at right angles where there is room and side by side where not; exclusive ones are opposite.

Elhage et al. 2022, "Correlated and Anticorrelated Features": pairs that always fire together, or never, in a plane.
Four features have room for two right angles, six do not: "correlated features are orthogonal" holds for the former
only. Best of 20 models by loss, because every second pair of exclusive features ends in a local minimum.

    sae-toolkit run correlated_features --output runs/correlated_features
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_toolkit.ground_truth import ToyData, ToyModels, ToyTrainConfig, best_of, train_toy_models
from sae_toolkit.metrics import feature_cosines
from sae_toolkit.report import (
    Expectation,
    FigurePanel,
    Headline,
    NamedScore,
    Report,
    build_experiment_report,
    feature_arrows_panel,
    gram_stacks_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Three arrangements of pairs at several sparsities."""

    n_inits: int = 20
    """Models per sparsity; the one with the lowest loss counts."""
    batch_size: int = 512
    """Samples per step."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=3000, learning_rate=1e-2)
    """Steps, learning rate and seed."""


SMOKE = Config(n_inits=12, train=ToyTrainConfig(n_steps=1000, learning_rate=2e-2))
SETUPS = {  # name (pairs, and how they fire): kind of grouping, pairs, probabilities that a feature is active
    "2 correlated": ("correlated", 2, (0.2, 0.05, 0.01)),
    "2 exclusive": ("exclusive", 2, (0.2, 0.1, 0.05)),
    "3 correlated": ("correlated", 3, (0.05, 0.01)),
}
ARROWS_CAPTION = (
    "The best model of each cell; features 1 and 2, 3 and 4, 5 and 6 are pairs, and all are equally important. The two "
    "features of a correlated pair stand at a right angle, each opposite to a feature of the other pair; three pairs "
    "have no room for that and lie side by side. The two features of an exclusive pair are opposite."
)
HEADLINES = (
    Headline(name="within_pair_cosine", label="Cosine within pairs", question="0: right angle, -1: opposite."),
    Headline(name="within_pair_abs_cosine_largest", label="Largest |cosine| within pairs", question="0: right angles."),
    Headline(name="antipodal_share_of_all_seeds", label="Opposite pairs, all seeds", question="How often by one run?"),
)


def pair_scores(best: Tensor, every: Tensor, n_pairs: int) -> dict[str, float]:
    """`best`: W of the best model; `every`: W of all models of its cell."""
    first = torch.arange(n_pairs) * 2
    cosines, all_cosines = feature_cosines(best), feature_cosines(every)[:, first, first + 1]
    within = cosines[first, first + 1]
    different = torch.arange(2 * n_pairs)[:, None] // 2 < torch.arange(2 * n_pairs) // 2
    return {
        "within_pair_cosine": float(within.mean()),
        "within_pair_cosine_smallest": float(within.min()),
        "within_pair_cosine_largest": float(within.max()),
        "within_pair_abs_cosine_largest": float(within.abs().max()),
        "across_pairs_antipodal_share": float((cosines[different] < -0.9).double().mean()),
        "antipodal_share_of_all_seeds": float((all_cosines < -0.9).double().mean()),
        "within_pair_cosine_of_all_seeds": float(all_cosines.mean()),
    }


def setup(config: Config, name: str) -> tuple[list[NamedScore], dict[str, Tensor]]:
    """Trains one arrangement: its scores, and W of the best model at each sparsity."""
    grouping, n_pairs, chances = SETUPS[name]
    pairs = tuple((2 * i, 2 * i + 1) for i in range(n_pairs))
    correlated, exclusive = (pairs if grouping == kind else () for kind in ("correlated", "exclusive"))
    size = ToyModels.Config(n_features=2 * n_pairs, n_hidden=2, n_instances=config.n_inits * len(chances))
    data = ToyData.uniform(chances, size.n_features, correlated=correlated, exclusive=exclusive)
    ones = torch.ones(size.n_features)
    training = train_toy_models(size, data, ones, train=config.train, batch_size=config.batch_size)
    models = {f"{name}, p={p:g}": W for p, W in zip(chances, best_of(training, config.n_inits).models.W, strict=True)}
    cells = training.models.W.reshape(len(chances), config.n_inits, 2, -1)
    found = [pair_scores(W, every, n_pairs) for W, every in zip(models.values(), cells, strict=True)]
    return [score for row, scores in zip(models, found, strict=True) for score in scores_of(row, scores)], models


def main(config: Config, run: RunFolder) -> Report:
    """All arrangements; features 1 and 2, 3 and 4, ... are pairs."""
    parts = [setup(config, name) for name in SETUPS]
    models = {name: W for _, found in parts for name, W in found.items()}
    arrows = replace(feature_arrows_panel(models), caption=ARROWS_CAPTION)
    figures: list[FigurePanel] = [arrows, gram_stacks_panel(models, columns=4)]
    scores = [score for found, _ in parts for score in found]
    description = {"inputs": "pairs on one coin: both or none (correlated), one or none (exclusive)", "n_hidden": 2}
    return build_experiment_report(config, run, scores, figures, description=description, headlines=HEADLINES)


EXPECTED = (
    Expectation(score="within_pair_abs_cosine_largest", sae="2 correlated, p=0.05", at_most=0.1),
    Expectation(score="within_pair_abs_cosine_largest", sae="2 correlated, p=0.01", at_most=0.1),
    Expectation(score="across_pairs_antipodal_share", sae="2 correlated, p=0.05", at_least=0.5, at_most=0.5),
    Expectation(score="across_pairs_antipodal_share", sae="2 correlated, p=0.01", at_least=0.5, at_most=0.5),
    Expectation(score="within_pair_cosine_largest", sae="2 exclusive, p=0.2", at_most=-0.995),
    Expectation(score="within_pair_cosine_largest", sae="2 exclusive, p=0.1", at_most=-0.995),
    Expectation(score="within_pair_cosine_largest", sae="2 exclusive, p=0.05", at_most=-0.995),
    Expectation(score="within_pair_cosine", sae="3 correlated, p=0.05", at_least=0.41, at_most=0.46),
    Expectation(score="within_pair_cosine", sae="3 correlated, p=0.01", at_least=0.41, at_most=0.46),
    Expectation(score="within_pair_cosine_smallest", sae="3 correlated, p=0.01", at_least=0.24),
)
SMOKE_EXPECTED = EXPECTED[:2] + EXPECTED[4:7]
