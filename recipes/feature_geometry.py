"""Features share dimensions in fixed proportions: over a range of sparsities each has exactly half of one (digons).

Elhage et al. 2022 (arXiv 2209.10652), "The Geometry of Superposition": D* = m / ||W||_F^2 of 200 equally important
features in 20 dimensions against sparsity has a plateau at 1/2 for 1/p in [2.2, 3.5] (a sweep with fewer than 6 points
per octave misses it), the features' own shares D_i cluster at the polytopes', and the smallest models are polytopes:
triangle and tetrahedron on the dense side, then pentagon, digons, square antiprism. At p = 0.3 the best possible
antipodal pair, found by quadrature, has D* = 0.490, which is why the lower end is 0.485 there and not 0.49.

    sae-toolkit run feature_geometry --output runs/feature_geometry
    sae-toolkit run feature_geometry --output runs/feature_geometry_400 --preset full

`full` has the paper's size, 400 features in 30 dimensions, and goes on to p = 0.005; the numbers below are not its own.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from sae_toolkit.ground_truth import (
    ToyData,
    ToyModels,
    ToyTrainConfig,
    best_of,
    best_pair,
    train_exactly,
    train_toy_models,
)
from sae_toolkit.metrics import (
    dimensions_per_feature,
    feature_dimensionality,
    geometry_class,
    geometry_scores,
    plateau_scores,
    polytope_shares,
    represented,
)
from sae_toolkit.report import (
    Expectation,
    FigurePanel,
    Headline,
    NamedScore,
    Report,
    build_experiment_report,
    dimensionality_scatter_panel,
    dimensions_per_feature_panel,
    feature_arrows_panel,
    gram_stacks_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """One sweep over sparsity, and the smallest models one by one."""

    preset: Literal["small", "full"] = "small"
    """small: 200 features in 20 dimensions; full: the paper's 400 in 30, and sparser."""
    probabilities: tuple[float, ...] = (
        0.9, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.27, 0.24, 0.22, 0.2, 0.15, 0.1,
    )  # fmt: skip
    """Probabilities p = 1 - S that a feature is active, in falling order."""
    n_inits: int = 8
    """Models per small cell, of which the one with the lowest loss counts; 6 times as many for 3 features."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=2000, learning_rate=1e-2)
    """Steps and learning of the sweep, and the seed of everything."""


SMOKE = Config(probabilities=(0.9, 0.4, 0.35, 0.2), n_inits=2, train=ToyTrainConfig(n_steps=600, learning_rate=1e-2))
SIZES = {"small": (200, 20, 512), "full": (400, 30, 256)}
SPARSER = {"small": (), "full": (0.12, 0.07, 0.04, 0.02, 0.01, 0.005)}
CELLS = {(3, 2): (0.8, 0.7, 0.6, 0.5, 0.3), (4, 3): (0.9, 0.5, 0.3), (5, 2): (0.05,), (6, 3): (0.05,), (8, 3): (0.05,)}
N_NODES = {3: 8, 4: 5}
"""Quadrature nodes where it costs less than sampling."""
HEADLINES = (
    Headline(name="dimensions_per_feature", label="D*", question="Hidden dimensions over the squared norm of W"),
    Headline(name="share_digon", label="Digons", question="What share of represented features has half a dimension?"),
)


def sweep(config: Config) -> tuple[list[NamedScore], list[FigurePanel]]:
    """D* and D_i of large models against sparsity, and D* of the best possible pair in one dimension."""
    n_features, n_hidden, batch_size = SIZES[config.preset]
    p = sorted({*config.probabilities, *SPARSER[config.preset]}, reverse=True)
    size, data = ToyModels.Config(n_features=n_features, n_hidden=n_hidden, n_instances=len(p)), ToyData.uniform
    options = {"batch_size": batch_size, "eval_samples": 8192}
    W = train_toy_models(size, data(p, n_features), torch.ones(n_features), train=config.train, **options).models.W
    D, scores = feature_dimensionality(W), []
    D_star, D_pair = dimensions_per_feature(W), dimensions_per_feature(best_pair(p).W)
    for i, chance in enumerate(p):
        values = {**geometry_scores(W[i]), "best_pair": float(D_pair[i])}
        if values["represented"]:
            shares = polytope_shares(D[i], represented(W[i]))
            values |= {f"share_{name.replace(' ', '_')}": share for name, share in shares.items()}
        scores += scores_of(f"p={chance:g}", values, n=n_features)
    scores += scores_of("sweep", plateau_scores(torch.tensor(p), D_star), n=len(p))
    curve = dimensions_per_feature_panel(f"{n_features} features in {n_hidden}", p, D_star, D_pair)
    return scores, [curve, dimensionality_scatter_panel(dict(zip(p, D, strict=True)))]


def cells(config: Config) -> tuple[list[NamedScore], list[FigurePanel]]:
    """The smallest models, whose best arrangement is one polytope."""
    scores, models, shapes = [], {}, []
    for (n, m), p in CELLS.items():
        n_inits = config.n_inits * (6 if n == 3 else 1)
        size, data = ToyModels.Config(n_features=n, n_hidden=m, n_instances=len(p) * n_inits), ToyData.uniform(p, n)
        if n in N_NODES:
            train = replace(config.train, n_steps=3 * config.train.n_steps // 4, learning_rate=3e-2)
            training = train_exactly(size, data, torch.ones(n), train=train, n_nodes=N_NODES[n])
        else:
            train = replace(config.train, n_steps=3 * config.train.n_steps // 2)
            training = train_toy_models(size, data, torch.ones(n), train=train, batch_size=512)
        W = best_of(training, n_inits).models.W
        for chance, model, shape, D in zip(p, W, geometry_class(W), feature_dimensionality(W), strict=True):
            name = f"{n} in {m}, p={chance:g}"
            models[name] = model
            shapes.append(f"{name}: {shape}")
            scores += scores_of(name, {"smallest_share": float(D.min()), "largest_share": float(D.max())}, n=n)
    stacks = gram_stacks_panel(models)
    flat = {name: model for name, model in models.items() if len(model) == 2}
    return scores, [replace(stacks, caption=f"{stacks.caption} {'; '.join(shapes)}."), feature_arrows_panel(flat)]


def main(config: Config, run: RunFolder) -> Report:
    """The sweep, then the cells."""
    (scores, figures), (more_scores, more_figures) = sweep(config), cells(config)
    description = {"data": "x_i = U[0, 1] with probability p, else 0; equal importances"}
    return build_experiment_report(
        config, run, scores + more_scores, figures + more_figures, description=description, headlines=HEADLINES
    )


EXPECTED_SHARES = {
    **{f"3 in 2, p={p}": (2 / 3 - 0.03, 2 / 3 + 0.03) for p in (0.8, 0.7, 0.6)},
    "4 in 3, p=0.9": (0.72, 0.78),
    "5 in 2, p=0.05": (0.37, 0.43),
    "6 in 3, p=0.05": (0.47, 0.53),
    "8 in 3, p=0.05": (0.36, 0.38),
}  # all features of a cell
EXPECTED_FLIPS = ("3 in 2, p=0.5", "3 in 2, p=0.3", "4 in 3, p=0.5", "4 in 3, p=0.3")  # a digon and dedicated ones
EXPECTED = (
    *(
        Expectation(score="dimensions_per_feature", sae=f"p={p}", at_least=0.49, at_most=0.54)
        for p in (0.45, 0.4, 0.35)
    ),
    Expectation(score="dimensions_per_feature", sae="p=0.3", at_least=0.485, at_most=0.54),
    Expectation(score="best_pair", sae="p=0.3", at_least=0.489, at_most=0.491),
    Expectation(score="dimensions_per_feature", sae="p=0.2", at_least=0.33, at_most=0.4),
    *(Expectation(score="share_digon", sae=f"p={p}", at_least=0.95) for p in (0.4, 0.35, 0.3)),
    *(
        Expectation(score="summed_dimensionality", sae=f"p={p}", at_least=19.7, at_most=20.0001)
        for p in Config().probabilities
    ),
    Expectation(score="smallest_fall", sae="sweep", at_least=0.0),
    Expectation(score="steepest_p", sae="sweep", at_least=0.5, at_most=0.65),
    *(Expectation(score="smallest_share", sae=cell, at_least=low) for cell, (low, _) in EXPECTED_SHARES.items()),
    *(Expectation(score="largest_share", sae=cell, at_most=high) for cell, (_, high) in EXPECTED_SHARES.items()),
    *(Expectation(score="smallest_share", sae=cell, at_least=0.47, at_most=0.53) for cell in EXPECTED_FLIPS),
    *(Expectation(score="largest_share", sae=cell, at_least=0.97, at_most=1.03) for cell in EXPECTED_FLIPS),
)
SMOKE_EXPECTED = (
    *(Expectation(score="dimensions_per_feature", sae=f"p={p}", at_least=0.46, at_most=0.56) for p in (0.4, 0.35)),
    Expectation(score="dimensions_per_feature", sae="p=0.9", at_least=0.9),
    Expectation(score="dimensions_per_feature", sae="p=0.2", at_most=0.42),
    Expectation(score="smallest_share", sae="5 in 2, p=0.05", at_least=0.37),
    Expectation(score="largest_share", sae="5 in 2, p=0.05", at_most=0.43),
)
