"""A small report with everything in it: two SAEs, three controls, every figure."""

from collections.abc import Callable
from math import nan

import pytest
import torch
from torch import Tensor

from sae_toolkit.metrics.score import Score
from sae_toolkit.report import (
    ControlScore,
    Expectation,
    NamedScore,
    Report,
    ReportedSAE,
    cosine_histogram_panel,
    density_panel,
    geometry_panel,
    match_matrix_panel,
    score_bars_panel,
    training_curves_panel,
)

HEADLINES = ("mean_matched_cosine", "recall_at_0.9", "explained_variance", "l0", "dead_fraction")


def directions(n: int, d: int, seed: int) -> Tensor:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def score(name: str, value: float) -> Score:
    return Score(value=value, low=value - 0.01, high=value + 0.01, floor=0.1, ceiling=1.0, n=24, id=f"{name}/v1")


def history(names: list[str]) -> list[dict[str, object]]:
    return [
        {
            "step": step,
            "samples": 100 * step,
            "saes": {name: {"loss": 1 / step, "l0": 3.0, "dead": 0.0} for name in names},
            **({"probe": {name: {"mean_matched_cosine": 1 - 1 / step} for name in names}} if step % 2 else {}),
        }
        for step in (1, 2, 3)
    ]


def example(first: str = "topk", *, size: int = 24, d_in: int = 8) -> Report:
    names = [first, "relu"]
    truth = directions(size, d_in, seed=0)
    decoders = {first: truth.flip(0), "relu": directions(size, d_in, seed=1)}
    scores = [NamedScore(name=h, sae=n, score=score(h, 0.9 - 0.1 * i)) for i, n in enumerate(names) for h in HEADLINES]
    scores.append(NamedScore(name="splitting_rate", sae=first, score=Score(value=nan, n=0, id="splitting_rate/v1")))
    controls = [
        ControlScore(name=h, sae=name, score=score(h, value), role=role)
        for name, value, role in (
            ("truth + OMP", 1.0, "ceiling"),
            ("k-means", 0.6, "opponent"),
            ("random", 0.1, "floor"),
        )
        for h in HEADLINES
    ]
    rates = {n: torch.linspace(0, 0.2, size) for n in names}
    log = history(names)
    return Report(
        recipe="toy",
        claim="Two SAEs & their scores.",
        config={"seed": 3, "world": {"n_features": size}, "saes": [{"k": 2}], "rate": nan},
        provenance={"torch": "2", "source": {"kind": "toy"}},
        saes=[
            ReportedSAE(name=n, variant="TopKSAE", path=f"checkpoints/{i}", weights_sha256="ab")
            for i, n in enumerate(names)
        ],
        scores=scores,
        controls=controls,
        expected=[Expectation(score="mean_matched_cosine", sae=first, at_least=0.85)],
        history=log,
        figures=[
            score_bars_panel(scores, controls),
            training_curves_panel(log),
            match_matrix_panel(truth, decoders),
            cosine_histogram_panel(
                {n: (truth @ W.T).amax(1) for n, W in decoders.items()}, floor=torch.linspace(0, 0.5, size)
            ),
            density_panel(rates, n_samples=1000),
            geometry_panel(truth, decoders),
        ],
    )


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    return example


@pytest.fixture(scope="session")
def report() -> Report:
    return example()
