"""Ten neurons compute the absolute values of more than ten features where features are sparse: each works for several.

y = ReLU(W2 ReLU(W1 x) + b) is to be |x| (Elhage et al. 2022, "Computation in Superposition"). |x_i| takes two neurons,
one per sign, so that 10 neurons hold the 5 most important features as long as features are dense. From p = 0.2 down
the loss is lower than that of any model that computes 5 features and predicts the others by their means.

    sae-toolkit run computation_in_superposition --output runs/computation
"""

from dataclasses import dataclass, replace

import torch

from sae_toolkit.ground_truth import (
    ToyData,
    ToyModels,
    ToyTrainConfig,
    best_of,
    linear_model_loss,
    train_toy_models,
)
from sae_toolkit.metrics import features_per_neuron, monosemantic_neurons, neuron_contributions, served_features
from sae_toolkit.report import (
    Expectation,
    Headline,
    Line,
    NamedScore,
    Reference,
    Report,
    build_experiment_report,
    line_chart_panel,
    neuron_stacks_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """A model with room for everything (3 features, 6 neurons) and one without (20 features, 10 neurons)."""

    n_inits: int = 8
    """Models per sparsity; the one with the lowest loss counts."""
    batch_size: int = 512
    """Samples per step."""
    probabilities: tuple[float, ...] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    """That a feature is active, for the model without room."""
    init_scale: float = 0.25
    """Of that model: larger starts end in worse minima."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=4000, learning_rate=1e-2)
    """Steps, learning rate and seed."""


SMOKE = Config(n_inits=6, probabilities=(0.5, 0.05), train=ToyTrainConfig(n_steps=1500, learning_rate=1e-2))
ROOMY = (1.0, 0.5, 0.3)
CHART_CAPTION = (
    "The model with 20 features and 10 neurons. Monosemantic neurons give way to shared ones as features grow sparse. "
    "The loss is relative to the best model of 5 features, at 1; below that line superposition computes."
)
HEADLINES = (
    Headline(name="monosemantic_neurons", label="Monosemantic neurons", question="How many serve one feature only?"),
    Headline(
        name="loss_over_best_dedicated", label="Loss / best dedicated", question="Below 1: superposition computes."
    ),
)


def measure(
    config: Config, size: ToyModels.Config, chances: tuple[float, ...], decay: float
) -> tuple[list[NamedScore], dict[str, torch.Tensor]]:
    """Trains one size, feature i with importance decay^i: scores and contributions of the best model per sparsity."""
    n, m, p = size.n_features, size.n_hidden, torch.tensor(chances)
    importance, size = decay ** torch.arange(float(n)), replace(size, n_instances=config.n_inits * len(chances))
    data = ToyData.uniform(chances, n, signed=True)
    training = train_toy_models(size, data, importance, train=config.train, batch_size=config.batch_size)
    best = best_of(training, config.n_inits)
    contributions = neuron_contributions(best.models.W, best.models.W2)
    values = {
        "monosemantic_neurons": monosemantic_neurons(contributions).sum(dim=-1),
        "features_per_neuron": features_per_neuron(contributions).mean(dim=-1),
        "top_features_computed": served_features(contributions)[:, : m // 2].sum(dim=-1),
        "loss_over_means_only": best.losses / linear_model_loss(importance, p, 0),
    }
    if n > m // 2:  # else the best dedicated model makes no error
        values["loss_over_best_dedicated"] = best.losses / linear_model_loss(importance, p, m // 2)
    rows = [f"n={n}, m={m}, p={chance:g}" for chance in chances]
    found = [scores_of(row, {k: float(v[i]) for k, v in values.items()}, n=m) for i, row in enumerate(rows)]
    return [score for scores in found for score in scores], dict(zip(rows, contributions, strict=True))


def main(config: Config, run: RunFolder) -> Report:
    """Both sizes."""
    small = ToyModels.Config(n_features=3, n_hidden=6, kind="absolute_value")
    large = ToyModels.Config(n_features=20, n_hidden=10, kind="absolute_value", init_scale=config.init_scale)
    scores, roomy = measure(config, small, ROOMY, 1.0)
    more, crowded = measure(config, large, config.probabilities, 0.8)
    names, x = ("monosemantic_neurons", "loss_over_best_dedicated"), [1 / p for p in config.probabilities]
    neurons, loss = ([s.score.value for s in more if s.name == name] for name in names)
    lines = [Line(name="monosemantic share", x=x, y=[y / large.n_hidden for y in neurons]),
             Line(name="loss / best dedicated", x=x, y=loss)]  # fmt: skip
    chart = line_chart_panel(
        "Shared neurons compute more", CHART_CAPTION, lines, x_label="1/p: one in so many samples has a given feature",
        y_label="share, or ratio of losses", references=[Reference(label="5 features", y=1)], log_x=True,
    )  # fmt: skip
    description = {"inputs": "U[-1, 1] with probability p, else 0; the target is |x|", "importance": "0.8^i, n = 20"}
    figures = [neuron_stacks_panel(crowded | roomy), chart]
    return build_experiment_report(config, run, scores + more, figures, description=description, headlines=HEADLINES)


EXPECTED = (
    *(Expectation(score="monosemantic_neurons", sae=f"n=3, m=6, p={p:g}", at_least=6.0) for p in ROOMY),
    *(Expectation(score="loss_over_means_only", sae=f"n=3, m=6, p={p:g}", at_most=0.001) for p in ROOMY),
    *(Expectation(score="monosemantic_neurons", sae=f"n=20, m=10, p={p:g}", at_least=10.0) for p in (1, 0.5)),
    *(Expectation(score="top_features_computed", sae=f"n=20, m=10, p={p:g}", at_least=5.0) for p in (1, 0.5)),
    *(Expectation(score="monosemantic_neurons", sae=f"n=20, m=10, p={p:g}", at_most=1.0) for p in (0.05, 0.02, 0.01)),
    *(
        Expectation(score="loss_over_best_dedicated", sae=f"n=20, m=10, p={p:g}", at_most=0.999)
        for p in (0.2, 0.1, 0.05, 0.02)
    ),
)
SMOKE_EXPECTED = tuple(e for e in EXPECTED if e.sae in ("n=3, m=6, p=0.5", "n=20, m=10, p=0.5", "n=20, m=10, p=0.05"))
