"""A crosscoder says at which of two sites a feature lives: by the lengths of its latent's decoder row at each.

64 features, 3 at a time: half of them at both sites, a quarter at the first alone, a quarter at the second alone, where
activations are ten times as long. The share of the second site in the summed lengths of a matched latent (medians over
shared, first-only and second-only features): TopK .499, .031, .958, though no penalty pushes there; ReLU .499, .000, 1.

    sae-toolkit run crosscoder_on_toy --output runs/crosscoder
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae_toolkit import AbstractSAE, ReluCrosscoder, TopKCrosscoder, TrainConfig, train
from sae_toolkit.activations import ViewsSource
from sae_toolkit.ground_truth import IndependentFiring, RectifiedNormalMagnitudes, World, random_directions
from sae_toolkit.ground_truth import uniform_probabilities as uniform
from sae_toolkit.metrics import match_latents, score_with_controls
from sae_toolkit.report import (
    Expectation,
    Headline,
    Line,
    Report,
    build_experiment_report,
    line_chart_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.saes import decoder_norms


@dataclass(frozen=True, kw_only=True)
class Config:
    """One world, two crosscoders."""

    n_features: int = 64
    """Features of the world (a multiple of 4), and latents of each crosscoder."""
    d_site: int = 32
    """Dimensions of each site."""
    l0: int = 3
    """Features active at a time, and k."""
    train: TrainConfig = TrainConfig(n_samples=1_000_000)
    """Budget, learning and the seed of everything."""
    eval_samples: int = 10_000
    """Held-out samples behind every score."""


SMOKE = Config(train=TrainConfig(n_samples=250_000, batch_size=256), eval_samples=2_000)
CAPTION = "Shared features first, then those of the first site alone, then those of the second."
HEADLINES = (
    Headline(name="matched_cosine", label="Found", question="Do latents point where features do?"),
    Headline(name="second_share_of_first_only", label="First only", question="0: they live there alone."),
    Headline(name="second_share_of_second_only", label="Second only", question="1: they live there alone."),
)


def build_world(config: Config) -> ViewsSource:
    """Shared features first, then those of the first site, then those of the second."""
    n, seed = config.n_features, config.train.seed
    first, second = (random_directions(n, config.d_site, seed=seed + i) for i in range(2))
    first[3 * n // 4 :], second[n // 2 : 3 * n // 4] = 0, 0
    world = World(
        directions=random_directions(n, config.d_site, seed=seed),
        firing=IndependentFiring(probabilities=uniform(n, expected_l0=float(config.l0))),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(n, mean=1.0, std=0.25),
    )
    return ViewsSource(world, {"first": first, "second": 10 * second})


def build_crosscoders(config: Config) -> dict[str, AbstractSAE]:
    """One that selects, one that penalises."""
    widths, seed = (config.d_site, config.d_site), config.train.seed
    size = {"d_in": sum(widths), "site_widths": widths, "d_sae": config.n_features}
    return {
        "TopK": TopKCrosscoder(TopKCrosscoder.Config(**size, k=config.l0), seed=seed),
        "ReLU": ReluCrosscoder(ReluCrosscoder.Config(**size), seed=seed),
    }


def shares(source: ViewsSource, sae: AbstractSAE) -> tuple[Tensor, Tensor]:
    """By feature: the cosine of its latent, and the second site's share of the lengths of that latent's decoder row."""
    sites = [rows / rows.norm() for rows in source.directions.values()]  # in the proportions of normalised sites
    matched = match_latents(normalize(torch.cat(sites, dim=1)), sae.W_dec.detach())
    lengths = decoder_norms(sae.W_dec.detach(), list(source.sites.values()))[matched.latent]
    return matched.cosine.clamp_min(0), lengths[:, 1] / lengths.sum(dim=1)


def placement(source: ViewsSource, sae: AbstractSAE) -> dict[str, float]:
    """How well features are found, and where their latents say that they live."""
    n, (cosine, share) = source.world.n_features, shares(source, sae)
    groups = {"shared": share[: n // 2], "first_only": share[n // 2 : 3 * n // 4], "second_only": share[3 * n // 4 :]}
    medians = {f"second_share_of_{name}": float(values.median()) for name, values in groups.items()}
    return {"matched_cosine": float(cosine.mean()), **medians}


def main(config: Config, run: RunFolder) -> Report:
    """Trains both in one pass, and scores them beside an untrained one."""
    source, saes = build_world(config), build_crosscoders(config)
    sites = dict.fromkeys(saes, tuple(source.sites))
    learning = {"ReLU": replace(config.train.learning, target_l0=float(config.l0))}
    train(saes, source, config.train, learning=learning, sites=sites, **run.training())
    everyone = {**saes, "untrained TopK": build_crosscoders(config)["TopK"]}
    ladder = score_with_controls(saes, source, sites=sites, n_samples=config.eval_samples, seed=config.train.seed)
    scores = [
        row
        for name, sae in everyone.items()
        for row in scores_of(name, {**placement(source, sae), **ladder.saes.get(name, {})}, n=config.n_features)
    ]
    ranks = [float(rank) for rank in range(config.n_features)]
    lines = [Line(name=name, x=ranks, y=shares(source, sae)[1].tolist()) for name, sae in everyone.items()]
    chart = line_chart_panel("Where latents live", CAPTION, lines, x_label="feature", y_label="second site's share")
    return build_experiment_report(
        config, run, scores, [chart], description=source.describe(), headlines=HEADLINES, saes=saes, ladder=ladder
    )


EXPECTED = (
    Expectation(score="matched_cosine", sae="TopK", at_least=0.95),
    Expectation(score="matched_cosine", sae="ReLU", at_least=0.94),
    *(Expectation(score="second_share_of_first_only", sae=sae, at_most=0.08) for sae in ("TopK", "ReLU")),
    *(Expectation(score="second_share_of_second_only", sae=sae, at_least=0.92) for sae in ("TopK", "ReLU")),
    *(Expectation(score="second_share_of_shared", sae=s, at_least=0.45, at_most=0.55) for s in ("TopK", "ReLU")),
    Expectation(score="matched_cosine", sae="untrained TopK", at_most=0.4),
)
SMOKE_EXPECTED = (
    *(Expectation(score="matched_cosine", sae=sae, at_least=0.93) for sae in ("TopK", "ReLU")),
    *(Expectation(score="second_share_of_first_only", sae=sae, at_most=0.1) for sae in ("TopK", "ReLU")),
    *(Expectation(score="second_share_of_second_only", sae=sae, at_least=0.9) for sae in ("TopK", "ReLU")),
    Expectation(score="matched_cosine", sae="untrained TopK", at_most=0.4),
)
