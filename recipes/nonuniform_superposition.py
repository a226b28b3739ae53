"""One feature of five that fires less often bends the pentagon little by little, and then drops out all at once.

Elhage et al. 2022 (arXiv 2209.10652), "Non-Uniform Superposition": five equally important features in a plane, four
active with probability 0.05 and one with p0. Its share of a dimension rises while p0 falls from 0.25 to about 0.02, and
below that it is ignored and the others stand in a square: a continuous deformation, then a jump. Best of 8 by loss.

    sae-toolkit run nonuniform_superposition --output runs/nonuniform_superposition
"""

from dataclasses import dataclass

import torch

from sae_toolkit.ground_truth import ToyData, ToyModels, ToyTrainConfig, best_of, train_toy_models
from sae_toolkit.metrics import feature_dimensionality, feature_norms
from sae_toolkit.report import (
    Expectation,
    Headline,
    Line,
    Reference,
    Report,
    build_experiment_report,
    feature_arrows_panel,
    line_chart_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Five features in two dimensions, one of them rarer or more frequent than the others."""

    probabilities: tuple[float, ...] = (
        0.003, 0.006, 0.0125, 0.015, 0.0175, 0.02, 0.025, 0.0375, 0.05, 0.075, 0.1, 0.15, 0.25,
    )  # fmt: skip
    """Probabilities p0 that the first feature is active, in rising order."""
    others: float = 0.05
    """The same of the four other features."""
    n_inits: int = 8
    """Models per probability, of which the one with the lowest loss counts."""
    batch_size: int = 512
    """Samples per step."""
    eval_samples: int = 262_144
    """Samples behind the losses that are compared: rare features need many."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=4000, learning_rate=1e-2)
    """Steps, learning and the seed of everything."""


SMOKE = Config(
    probabilities=(0.006, 0.05, 0.25),
    n_inits=6,
    eval_samples=65_536,
    train=ToyTrainConfig(n_steps=2000, learning_rate=1e-2),
)
HEADLINES = (
    Headline(name="dimensionality", label="Dimensionality", question="What share of a dimension has the odd feature?"),
    Headline(name="norm", label="Norm", question="How long is its direction?"),
)


def main(config: Config, run: RunFolder) -> Report:
    """Trains all models together and measures the best of each probability."""
    p = torch.full((len(config.probabilities), 5), config.others)
    p[:, 0] = torch.tensor(config.probabilities)
    size = ToyModels.Config(n_features=5, n_hidden=2, n_instances=len(p) * config.n_inits)
    samples = {"batch_size": config.batch_size, "eval_samples": config.eval_samples}
    training = train_toy_models(size, ToyData(probabilities=p), torch.ones(5), train=config.train, **samples)
    W = best_of(training, config.n_inits).models.W
    names = [f"p0={p0:g}" for p0 in config.probabilities]
    D = feature_dimensionality(W)
    odd, others, scores = D[:, 0], D[:, 1:], []
    for name, own, rest, norm in zip(names, odd, others, feature_norms(W)[:, 0], strict=True):
        values = {"dimensionality": float(own), "norm": float(norm)}
        values |= {"smallest_of_others": float(rest.min()), "largest_of_others": float(rest.max())}
        scores += scores_of(name, values)
    bending = odd[p[:, 0] > 0.49 * config.others]
    jumps = {"jump": float(odd.diff().max()), "smallest_fall": float(-bending.diff().max())}
    scores += scores_of("all p0", jumps, n=len(odd))
    lowest, mean, highest = (values.tolist() for values in (others.amin(1), others.mean(1), others.amax(1)))
    lines = [
        Line(name="the odd feature", x=config.probabilities, y=odd.tolist()),
        Line(name="the four others", x=config.probabilities, y=mean, low=lowest, high=highest),
    ]
    levels = [Reference(label="square 1/2", y=0.5), Reference(label="pentagon 2/5", y=0.4)]
    levels.append(Reference(label="as the others", x=config.others))
    caption = (
        "The share of a dimension of the odd feature, and mean and range of the four others. On the right the pentagon "
        "bends continuously; on the left the odd feature is ignored, the others form a square. In between lies a jump."
    )
    figures = [
        line_chart_panel(
            "A jump", caption, lines, x_label="p0", y_label="dimensionality", references=levels, log_x=True
        ),
        feature_arrows_panel(dict(zip(names, W, strict=True))),
    ]
    description = {"data": f"x_i = U[0, 1] with probability {config.others} (p0 for the first feature), else 0"}
    return build_experiment_report(config, run, scores, figures, description=description, headlines=HEADLINES)


EXPECTED = (
    *(Expectation(score="dimensionality", sae=f"p0={p0}", at_most=0.01) for p0 in (0.003, 0.006, 0.0125)),
    *(Expectation(score="smallest_of_others", sae=f"p0={p0}", at_least=0.49) for p0 in (0.003, 0.006, 0.0125)),
    *(Expectation(score="largest_of_others", sae=f"p0={p0}", at_most=0.51) for p0 in (0.003, 0.006, 0.0125)),
    Expectation(score="dimensionality", sae="p0=0.025", at_least=0.39),
    Expectation(score="jump", sae="all p0", at_least=0.39),
    Expectation(score="dimensionality", sae="p0=0.05", at_least=0.39, at_most=0.41),
    Expectation(score="smallest_fall", sae="all p0", at_least=0.0),
)
SMOKE_EXPECTED = (
    Expectation(score="dimensionality", sae="p0=0.006", at_most=0.05),
    Expectation(score="dimensionality", sae="p0=0.05", at_least=0.38, at_most=0.42),
    Expectation(score="dimensionality", sae="p0=0.25", at_most=0.39),
)
