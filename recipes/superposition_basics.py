"""Sparser features share dimensions: five in a plane are 2 at a right angle, then 2 antipodal pairs, then a pentagon.

Elhage et al. 2022 (arXiv 2209.10652), "Demonstrating Superposition": ReLU(W^T W x + b), importance 0.9^i, here 20 seeds
at each of 11 probabilities p that a feature is active. Where two arrangements coexist (p = 0.5, 0.2 to 0.05) shares are
drawn and not promised. Norms in the pentagon are 1.16 and not 1: the negative bias takes away what is too much.

    sae-toolkit run superposition_basics --output runs/superposition_basics
"""

from dataclasses import dataclass, replace

import torch

from sae_toolkit.ground_truth import (
    ToyData,
    ToyModels,
    ToyTrainConfig,
    best_of,
    evaluate_toy_models,
    linear_model_loss,
    train_toy_models,
)
from sae_toolkit.metrics import arrangement_in_plane, arrangement_shares, feature_norms, represented
from sae_toolkit.report import (
    Expectation,
    Headline,
    Line,
    Report,
    build_experiment_report,
    feature_arrows_panel,
    line_chart_panel,
    scores_of,
    training_frames_panel,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Five features in two dimensions, every sparsity and seed at once."""

    probabilities: tuple[float, ...] = (1.0, 0.7, 0.5, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01, 0.003)
    """Probabilities p = 1 - S that a feature is active."""
    n_seeds: int = 20
    """Models per probability; shares are over them, arrows show the one with the lowest loss."""
    init_scale: float = 1.15
    """Of the initial weights, in Xavier's: 1 leaves a few more models in local minima."""
    batch_size: int = 512
    """Samples per step."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=8000, learning_rate=3e-3)
    """Steps, learning and the seed of everything."""


SMOKE = Config(
    probabilities=(1.0, 0.3, 0.01), n_seeds=10, batch_size=256, train=ToyTrainConfig(n_steps=2000, learning_rate=1e-2)
)
MOVING = 5
"""Models in the step-through picture, evenly spread over the probabilities."""
FRAMES = 16
QUESTIONS = {
    "orthogonal": "What share of models keeps two features at a right angle and drops three?",
    "antipodal": "What share has two pairs of opposite features?",
    "pentagon": "What share has all five, 72 degrees apart?",
    "loss_over_linear": "The best model's loss over that of the best linear model, which keeps two features",
}


def main(config: Config, run: RunFolder) -> Report:
    """Trains all models together and sorts them by the angles of their features."""
    importance, data = 0.9 ** torch.arange(5.0), ToyData.uniform(config.probabilities, 5)
    size = ToyModels.Config(
        n_features=5, n_hidden=2, n_instances=data.n_cells * config.n_seeds, init_scale=config.init_scale
    )
    steps = sorted({round(config.train.n_steps * (i / (FRAMES - 1)) ** 2) for i in range(FRAMES)})
    train = replace(config.train, snapshot_steps=tuple(steps))
    training = train_toy_models(size, data, importance, train=train, batch_size=config.batch_size)
    best = best_of(training, config.n_seeds)
    names = [f"p={p:g}" for p in config.probabilities]
    ratios = best.losses / linear_model_loss(importance, data.probabilities[:, 0], 2)
    shares, scores = [], []
    for name, W, ratio in zip(names, training.models.W.split(config.n_seeds), ratios, strict=True):
        found = arrangement_in_plane(W)
        shares.append(arrangement_shares(found))
        top_two = (represented(W) == torch.tensor([True, True, False, False, False])).all(dim=1).double().mean()
        values = {**shares[-1], "top_two": float(top_two), "loss_over_linear": float(ratio)}
        norms = feature_norms(W)[[name == "5 pentagon" for name in found]]
        if len(norms):
            values |= {"smallest_pentagon_norm": float(norms.min()), "largest_pentagon_norm": float(norms.max())}
        scores += scores_of(name, values, n=config.n_seeds)
    moving = sorted({round(i * (len(names) - 1) / (MOVING - 1)) for i in range(MOVING)})
    losses = torch.stack([evaluate_toy_models(models, data, importance) for _, models in best.history])
    lines = [
        Line(name=kind, x=[1 / p for p in config.probabilities], y=[share[kind] for share in shares])
        for kind in shares[0]
    ]
    caption = "Shares of the seeds. Two lines above 0 at one sparsity: arrangements that coexist, as local minima do."
    figures = [
        feature_arrows_panel(dict(zip(names, best.models.W, strict=True))),
        training_frames_panel(
            {names[i]: torch.stack([models.W[i] for _, models in best.history]) for i in moving},
            steps,
            {names[i]: losses[:, i].tolist() for i in moving},
        ),
        line_chart_panel("Arrangements", caption, lines, x_label="1/p", y_label="share of models", log_x=True),
    ]
    headlines = [Headline(name=name, label=name.replace("_", " "), question=asked) for name, asked in QUESTIONS.items()]
    description = {"data": "x_i = U[0, 1] with probability p, else 0; 5 features of importance 0.9^i"}
    return build_experiment_report(config, run, scores, figures, description=description, headlines=headlines)


EXPECTED = (
    Expectation(score="orthogonal", sae="p=1", at_least=0.8),
    Expectation(score="top_two", sae="p=1", at_least=0.8),
    Expectation(score="loss_over_linear", sae="p=1", at_least=0.97, at_most=1.03),
    Expectation(score="antipodal", sae="p=0.3", at_least=0.8),
    *(Expectation(score="pentagon", sae=f"p={p}", at_least=0.9) for p in (0.02, 0.01, 0.003)),
    *(Expectation(score="smallest_pentagon_norm", sae=f"p={p}", at_least=1.13) for p in (0.02, 0.01, 0.003)),
    *(Expectation(score="largest_pentagon_norm", sae=f"p={p}", at_most=1.19) for p in (0.02, 0.01, 0.003)),
)
SMOKE_EXPECTED = (
    Expectation(score="orthogonal", sae="p=1", at_least=0.5),
    Expectation(score="antipodal", sae="p=0.3", at_least=0.5),
    Expectation(score="pentagon", sae="p=0.01", at_least=0.5),
    Expectation(score="loss_over_linear", sae="p=0.01", at_most=0.3),
)
