"""A linear model keeps the top features at any sparsity and drops the rest; a ReLU model packs in more, the sparser.

Elhage et al. 2022 (arXiv 2209.10652), "Demonstrating Superposition": W^T W, norms and interference of 20 features in 5
dimensions (importance 0.7^i) and of 80 in 20 (0.9^i), the best of 8 and 4 models by loss at 5 probabilities p that a
feature is active. The linear model is held against its closed form. A trap is drawn as well: with 400 *equal*
importances and dense data W is any subspace, ||W||_F^2 counts 30 features, and not one of them is represented.

    sae-toolkit run superposition_stacks --output runs/superposition_stacks
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from sae_toolkit.ground_truth import (
    ToyData,
    ToyModels,
    ToyTrainConfig,
    best_of,
    linear_model_loss,
    train_toy_models,
)
from sae_toolkit.ground_truth.toy_model import ToyModelKind
from sae_toolkit.metrics import geometry_scores
from sae_toolkit.report import (
    Expectation,
    FigurePanel,
    Headline,
    NamedScore,
    Report,
    build_experiment_report,
    gram_stacks_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Two sizes of ReLU-output models, linear ones of the smaller size, and the trap."""

    probabilities: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    """Probabilities p = 1 - S that a feature is active, in falling order."""
    n_inits: int = 8
    """Models of 20 features per probability, of which the one with the lowest loss counts."""
    n_large_inits: int = 4
    """Models of 80 features per probability, likewise."""
    batch_size: int = 512
    """Samples per step."""
    eval_samples: int = 1_000_000
    """Samples behind each loss; some are held against a closed form, and the sparsest need many."""
    linear: ToyTrainConfig = ToyTrainConfig(n_steps=3000, learning_rate=5e-3)
    """How linear models learn (their seed is that of `train`)."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=4000, learning_rate=3e-3)
    """Steps, learning and the seed of everything."""


SMOKE = Config(
    probabilities=(1.0, 0.1, 0.01),
    n_inits=2,
    n_large_inits=1,
    batch_size=128,
    eval_samples=65_536,
    linear=ToyTrainConfig(n_steps=1500, learning_rate=1e-2),
    train=ToyTrainConfig(n_steps=1500, learning_rate=1e-2),
)
HEADLINES = (
    Headline(name="represented", label="Represented", question="How many features have a norm above 1/2?"),
    Headline(name="dimensions_per_feature", label="D*", question="Hidden dimensions over the squared norm of W"),
    Headline(name="mean_interference", label="Interference", question="How much do represented features feel others?"),
    Headline(name="loss_over_linear", label="Loss / linear", question="The loss over that of the best linear model"),
)


def measured(
    config: Config, label: str, kind: ToyModelKind, data: ToyData, n_hidden: int, importance: Tensor, n_inits: int
) -> tuple[list[NamedScore], FigurePanel]:
    """Trains models of one size, and measures and draws the best of each probability."""
    size = ToyModels.Config(
        n_features=data.n_features, n_hidden=n_hidden, n_instances=data.n_cells * n_inits, kind=kind
    )
    train = replace(config.linear, seed=config.train.seed) if kind == "linear" else config.train
    samples = {"batch_size": config.batch_size, "eval_samples": config.eval_samples}
    best = best_of(train_toy_models(size, data, importance, train=train, **samples), n_inits)
    p, scores = data.probabilities[:, 0], []
    ratios = best.losses / linear_model_loss(importance, p, n_hidden)
    values = [{**geometry_scores(W), "loss_over_linear": float(r)} for W, r in zip(best.models.W, ratios, strict=True)]
    names = [f"{label}, p={chance:g}" for chance in p]
    for name, found in zip(names, values, strict=True):
        scores += scores_of(name, found, n=data.n_features)
    rises = {
        f"smallest_rise_of_{key}": min(sparse[key] - dense[key] for dense, sparse in pairwise(values))
        for key in ("represented", "mean_interference")
        if len(values) > 1
    }
    figure = gram_stacks_panel(dict(zip(names, best.models.W, strict=True)))
    return [*scores, *scores_of(label, rises, n=len(names))], replace(figure, title=f"{figure.title}: {label}")


def main(config: Config, run: RunFolder) -> Report:
    """Linear models, ReLU models of both sizes, and equal importances."""
    small, large, equal = 0.7 ** torch.arange(20.0), 0.9 ** torch.arange(80.0), torch.ones(400)
    sparse, dense = config.probabilities, (1.0,)
    parts = [
        measured(config, "linear", "linear", ToyData.uniform(sparse, 20), 5, small, 1),
        measured(config, "n=20", "relu_output", ToyData.uniform(sparse, 20), 5, small, config.n_inits),
        measured(config, "n=80", "relu_output", ToyData.uniform(sparse, 80), 20, large, config.n_large_inits),
        measured(config, "equal", "linear", ToyData.uniform(dense, 400), 30, equal, 1),
    ]
    scores = [score for found, _ in parts for score in found]
    figures = [figure for _, figure in parts]
    description = {"data": "x_i = U[0, 1] with probability p, else 0; importance 0.7^i (n=20), 0.9^i (n=80), 1 (equal)"}
    return build_experiment_report(config, run, scores, figures, description=description, headlines=HEADLINES)


EXPECTED_COUNTS = {
    "n=20": {"0.3": (5, 11), "0.1": (7, 12), "0.03": (8, 13), "0.01": (10, 15)},
    "n=80": {"0.3": (23, 29), "0.1": (31, 38), "0.03": (39, 47), "0.01": (47, 53)},
}  # the published ranges, and 2 (n = 20) or 3 (n = 80) on either side
EXPECTED = (
    *(
        expectation
        for p in ("1", "0.3", "0.1", "0.03", "0.01")
        for expectation in (
            Expectation(score="loss_over_linear", sae=f"linear, p={p}", at_least=0.97, at_most=1.03),
            Expectation(score="represented", sae=f"linear, p={p}", at_least=5.0, at_most=5.0),
            Expectation(score="out_of_order", sae=f"linear, p={p}", at_most=0.0),
            Expectation(score="dimensions_per_feature", sae=f"linear, p={p}", at_least=0.99, at_most=1.01),
            Expectation(score="out_of_order", sae=f"n=20, p={p}", at_most=2.0),
            Expectation(score="out_of_order", sae=f"n=80, p={p}", at_most=2.0),
        )
    ),
    *(
        Expectation(score="represented", sae=f"{label}, p={p}", at_least=float(low), at_most=float(high))
        for label, counts in EXPECTED_COUNTS.items()
        for p, (low, high) in counts.items()
    ),
    *(
        expectation
        for label, n_hidden in (("n=20", 5), ("n=80", 20))
        for expectation in (
            Expectation(score="represented", sae=f"{label}, p=1", at_least=float(n_hidden), at_most=float(n_hidden)),
            Expectation(score="dimensions_per_feature", sae=f"{label}, p=1", at_least=0.99, at_most=1.01),
            Expectation(score="mean_interference", sae=f"{label}, p=1", at_most=0.02),
            Expectation(score="smallest_rise_of_represented", sae=label, at_least=0.0),
            Expectation(score="smallest_rise_of_mean_interference", sae=label, at_least=0.0),
        )
    ),
    Expectation(score="dimensions_per_feature", sae="equal, p=1", at_least=0.99, at_most=1.01),
    Expectation(score="represented", sae="equal, p=1", at_most=0.0),
)
SMOKE_EXPECTED = (
    Expectation(score="represented", sae="equal, p=1", at_most=0.0),
    Expectation(score="loss_over_linear", sae="linear, p=1", at_least=0.95, at_most=1.05),
    Expectation(score="represented", sae="linear, p=0.01", at_least=5.0, at_most=5.0),
    Expectation(score="represented", sae="n=20, p=1", at_least=5.0, at_most=5.0),
    Expectation(score="represented", sae="n=20, p=0.01", at_least=9.0),
    Expectation(score="smallest_rise_of_mean_interference", sae="n=20", at_least=0.0),
)
