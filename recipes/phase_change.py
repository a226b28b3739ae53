"""Whether a toy model ignores, dedicates or shares a dimension changes suddenly, where closed-form losses cross.

All but one feature have importance 1, the extra one r, and there is one dimension too few (Elhage et al. 2022,
"Superposition as a Phase Change"). Every cell is trained on the exact expectation and the best of 12 is kept. The
closed form is a lower bound on the boundary of superposition; the refined curve lets norms and biases adapt.

    sae-toolkit run phase_change --output runs/phase_change
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sae_toolkit.ground_truth import (
    PHASES,
    ToyData,
    ToyModels,
    ToyTrainConfig,
    best_of,
    closed_form_boundary,
    predict_phases,
    refined_boundary,
    train_exactly,
    trained_phases,
)
from sae_toolkit.metrics import Score
from sae_toolkit.report import (
    Boundary,
    Expectation,
    FigurePanel,
    Headline,
    NamedScore,
    PhaseMap,
    Report,
    build_experiment_report,
    phase_diagram_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """A square grid of sparsity and importance, for two sizes of model."""

    n_cells: int = 9
    """Values of p from 0.01 to 1, and of r from 0.1 to 10, evenly spaced in the logarithm."""
    n_inits: int = 12
    """Models per cell; the one with the lowest loss counts."""
    n_theory_cells: int = 81
    """The same of the theoretical diagram."""
    n_curve: int = 31
    """Points of the boundary curves."""
    train: ToyTrainConfig = ToyTrainConfig(n_steps=1000, learning_rate=2e-2)
    """Steps, learning rate and seed of both sizes."""


SMOKE = Config(n_cells=5, n_curve=5, train=ToyTrainConfig(n_steps=500, learning_rate=3e-2))
SIZES: dict[Literal[2, 3], int] = {2: 8, 3: 6}  # n_features: quadrature nodes
CLEAR = 0.25  # second best phase / best - 1 above which a cell is off the boundary
REFINED = (0.1, 0.3, 3.0)
HEADLINES = (
    Headline(
        name="agreement_off_boundary", label="Agreement off the boundary", question="Do models do as theory says?"
    ),
    Headline(name="refined_boundary", label="Refined boundary", question="Below which p is the extra feature shared?"),
)


def grid(n: int) -> tuple[Tensor, Tensor]:
    """p and r of every cell, r by rows."""
    return torch.logspace(-2, 0, n).repeat(n), torch.logspace(-1, 1, n).repeat_interleave(n)


def phase_map(name: str, phase: Tensor, n: int, marked: Tensor | None = None) -> PhaseMap:
    """Of the cells of `grid`."""
    crosses = None if marked is None else marked.reshape(n, n)
    p, r = torch.logspace(-2, 0, n), torch.logspace(-1, 1, n)
    return PhaseMap(name=name, p=p, r=r, classes=phase.reshape(n, n), marked=crosses)


def boundaries(config: Config, n_features: Literal[2, 3]) -> list[Boundary]:
    """Where superposition of the extra feature ends; above r = 1 the other features share if there are two (n = 3)."""
    r = torch.logspace(-1, 1, config.n_curve)[: None if n_features == 2 else config.n_curve // 2 + 1]
    curves = {"closed form": closed_form_boundary(r), "refined": refined_boundary(r.tolist(), n_points=16)}
    corner = torch.tensor([] if n_features == 2 else [1.0])
    return [Boundary(label=k, p=torch.cat([p, 1e-3 * corner]), r=torch.cat([r, corner])) for k, p in curves.items()]


def diagram(config: Config, n: Literal[2, 3]) -> tuple[list[NamedScore], FigurePanel]:
    """Trains every cell of one size and compares it with theory."""
    p, r = grid(config.n_cells)
    size = ToyModels.Config(n_features=n, n_hidden=n - 1, n_instances=len(p) * config.n_inits)
    importance = torch.cat([torch.ones(len(p), n - 1), r[:, None]], dim=1)
    data = ToyData(probabilities=p[:, None].repeat(1, n))
    best = best_of(train_exactly(size, data, importance, train=config.train, n_nodes=SIZES[n]), config.n_inits)
    theory = predict_phases(p, r, n_features=n)
    trained = trained_phases(best.models.W)
    agrees, clear = trained == theory.phase, theory.margin > CLEAR
    off = Score(value=float(agrees[clear].double().mean()), n=int(clear.sum()), id="agreement_off_boundary/v1")
    scores: dict[str, Score | float] = {"agreement_off_boundary": off, "agreement": float(agrees.double().mean())}
    scores["largest_loss_over_theory"] = float((best.losses / theory.loss).max())
    predicted = predict_phases(*grid(config.n_theory_cells), n_features=n).phase
    maps = [
        phase_map("trained", trained, config.n_cells, ~agrees),
        phase_map("theory", predicted, config.n_theory_cells),
    ]
    panel = replace(
        phase_diagram_panel(maps, PHASES, boundaries(config, n)), title=f"{n} features, {n - 1} dimension(s)"
    )
    return scores_of(f"n={n}, m={n - 1}", scores, n=len(agrees)), panel


def main(config: Config, run: RunFolder) -> Report:
    """Both sizes, then the boundaries by minimisation."""
    parts = [diagram(config, n) for n in SIZES]
    scores = [score for found, _ in parts for score in found]
    r = torch.tensor(REFINED)
    for value, closed, refined in zip(REFINED, closed_form_boundary(r), refined_boundary(REFINED), strict=True):
        scores += scores_of(f"r={value:g}", {"refined_boundary": float(refined), "closed_form_boundary": float(closed)})
    description = {"inputs": "exact expectation over masks and magnitudes U[0, 1]", "cells": config.n_cells**2}
    figures = [panel for _, panel in parts]
    return build_experiment_report(config, run, scores, figures, description=description, headlines=HEADLINES)


EXPECTED = (
    Expectation(score="agreement_off_boundary", sae="n=2, m=1", at_least=0.95),
    Expectation(score="agreement_off_boundary", sae="n=3, m=2", at_least=0.9),
    Expectation(score="refined_boundary", sae="r=0.1", at_least=0.171, at_most=0.191),
    Expectation(score="refined_boundary", sae="r=0.3", at_least=0.366, at_most=0.386),
    Expectation(score="refined_boundary", sae="r=3", at_least=0.388, at_most=0.408),
)
SMOKE_EXPECTED = EXPECTED
