"""The features of a trained toy model can be found by SAEs that never see them, but not at the true number of latents.

A ReLU-output model (Elhage et al. 2022, Toy Models of Superposition, arXiv 2209.10652) packs 64 features into 24
dimensions; SAEs read its hidden layer. How it packs depends on the probability p that a feature is active: 48 features
as 24 opposite pairs at p = .3 (D* = 1/2), all 64 at p <= .2 (D* near 1/3). Sparse features are found by all SAEs. Of
the dense pairs a TopK SAE with the true number of active features, 14, explains 96 % of the variance and finds next to
nothing; one with a quarter of it explains 68 % and finds 90 to 100 %. So does a ReLU SAE, which settles below its
target, near the 12.2 features that are left when opposite ones cancel. Floors are random directions; clusters of the
data are a strong opponent.

    sae-toolkit run sae_on_learned_superposition --output runs/learned
"""

from dataclasses import dataclass, replace

import torch

from sae_toolkit import AbstractSAE, BatchTopKSAE, ReluSAE, TopKSAE, TrainConfig, train
from sae_toolkit.activations import ToyModelSource
from sae_toolkit.ground_truth import ToyData, ToyModels, ToyTrainConfig, train_toy_models
from sae_toolkit.metrics import dimensions_per_feature, score_recovery
from sae_toolkit.report import (
    Expectation,
    Headline,
    Report,
    build_experiment_report,
    recovery_curves_panels,
    scores_of,
    with_saes_of_parts,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """One toy model for each probability, three SAEs on each."""

    p: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1, 0.03, 0.01)
    """Probabilities that a feature is active, equal for all features."""
    n_features: int = 64
    """Features of the toy models, equally important, and latents of each SAE."""
    n_hidden: int = 24
    """Dimensions of the hidden layer."""
    toy_steps: int = 3000
    """Updates of each toy model."""
    train: TrainConfig = TrainConfig(n_samples=600_000)
    """Of the SAEs: budget, learning and the seed of everything."""
    eval_samples: int = 10_000
    """Held-out samples behind every score."""


SMOKE = Config(p=(0.1, 0.03), toy_steps=1000, train=TrainConfig(n_samples=150_000, batch_size=256), eval_samples=2_000)

HEADLINES = (
    Headline(name="dimensions_per_feature", label="D*", question="Hidden dimensions over the squared norm of W"),
    Headline(name="represented_share", label="Represented", question="What share of features has a norm above 1/2?"),
)


def make_source(config: Config, run: RunFolder) -> ToyModelSource:
    """The hidden layer of a model trained at the first probability."""
    data = ToyData.uniform(config.p[:1], config.n_features)
    size = ToyModels.Config(n_features=config.n_features, n_hidden=config.n_hidden)
    learning = ToyTrainConfig(n_steps=config.toy_steps, learning_rate=1e-2, seed=config.train.seed)
    return ToyModelSource(
        train_toy_models(size, data, torch.ones(config.n_features), train=learning, batch_size=512).models, data
    )


def make_saes(config: Config, source: ToyModelSource) -> dict[str, AbstractSAE]:
    """One SAE of each variant, as sparse as the features are, and a TopK SAE that is sparser."""
    size, seed = {"d_in": source.d_in, "d_sae": config.n_features}, config.train.seed
    k = max(1, round(source.mean_active))
    return {
        "TopK": TopKSAE(TopKSAE.Config(**size, k=k), seed=seed),
        "TopK quarter k": TopKSAE(TopKSAE.Config(**size, k=max(1, round(k / 4))), seed=seed),
        "BatchTopK": BatchTopKSAE(BatchTopKSAE.Config(**size, k=k), seed=seed),
        "ReLU": ReluSAE(ReluSAE.Config(**size), seed=seed),
    }


def main(config: Config, run: RunFolder) -> Report:
    """Toy model, SAEs and scores at one probability after the other."""
    scores, parts = [], {}
    for p in config.p:
        part, at = run.part(f"p_{p:g}"), f"p={p:g}"
        source = make_source(replace(config, p=(p,)), part)
        saes = make_saes(config, source)
        parts[at] = (part, saes)
        learning = {"ReLU": replace(config.train.learning, target_l0=source.mean_active)}
        train(saes, source, config.train, learning=learning, **part.training())
        k, W = max(1, round(source.mean_active)), source.models.W[0]
        found = score_recovery(saes, source, k=k, n_samples=config.eval_samples, seed=config.train.seed)
        scores += [row for name, values in found.items() for row in scores_of(f"{name} {at}", values)]
        toy = {
            "dimensions_per_feature": float(dimensions_per_feature(W)),
            "represented_share": len(source.directions) / config.n_features,
        }
        scores += scores_of(f"toy model {at}", toy)
    described = source.describe()
    figures = recovery_curves_panels(scores)
    report = build_experiment_report(config, run, scores, figures, description=described, headlines=HEADLINES)
    return with_saes_of_parts(report, parts)


EXPECTED = (
    Expectation(score="dimensions_per_feature", sae="toy model p=0.3", at_least=0.46, at_most=0.54),
    Expectation(score="represented_share", sae="toy model p=0.3", at_least=0.72, at_most=0.82),
    Expectation(score="represented_share", sae="toy model p=0.03", at_least=0.98),
    Expectation(score="recall_at_0.9", sae="TopK p=0.3", at_most=0.15),
    Expectation(score="explained_variance", sae="TopK p=0.3", at_least=0.93),
    Expectation(score="recall_at_0.9", sae="BatchTopK p=0.3", at_most=0.15),
    Expectation(score="recall_at_0.9", sae="TopK quarter k p=0.3", at_least=0.85),
    Expectation(score="explained_variance", sae="TopK quarter k p=0.3", at_most=0.75),
    Expectation(score="recall_at_0.9", sae="ReLU p=0.3", at_least=0.95),
    Expectation(score="l0", sae="ReLU p=0.3", at_least=11.0, at_most=14.0),
    Expectation(score="recall_at_0.9", sae="k-means p=0.3", at_most=0.6),
    Expectation(score="recall_at_0.9", sae="random p=0.3", at_most=0.02),
    Expectation(score="recall_at_0.9", sae="TopK p=0.03", at_least=0.93),
    Expectation(score="recall_at_0.9", sae="BatchTopK p=0.03", at_least=0.85),
    Expectation(score="recall_at_0.9", sae="ReLU p=0.03", at_least=0.85),
    Expectation(score="recall_at_0.9", sae="random p=0.03", at_most=0.02),
)
SMOKE_EXPECTED = (
    Expectation(score="recall_at_0.9", sae="TopK p=0.03", at_least=0.8),
    Expectation(score="represented_share", sae="toy model p=0.03", at_least=0.95),
    Expectation(score="recall_at_0.9", sae="random p=0.03", at_most=0.02),
)
