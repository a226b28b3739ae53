"""A transcoder finds what each feature looks like where it is read, and what it becomes where it is written.

64 features, 3 of them at a time, are read in 32 dimensions and written in 40 others: a known map that is computed in
superposition on both sides. A latent is right where it writes a feature's direction (matched cosine) and answers to no
other feature as strongly (`reads_its_feature`). An untrained transcoder is the floor. With a skip connection latents
write what the linear map leaves over, which explains more and names less: written cosine .997 (TopK), .987 (ReLU), .654
(Skip), untrained .329; explained variance .791, .667, .873, of k-means directions of what is read .623, of the best
linear map .490, of random directions .239.

    sae-toolkit run transcoder_on_toy --output runs/transcoder
"""

from dataclasses import dataclass, replace

from torch import Tensor

from sae_toolkit import AbstractSAE, ReluTranscoder, SkipTopKTranscoder, TopKTranscoder, TrainConfig, train
from sae_toolkit.activations import ViewsSource
from sae_toolkit.ground_truth import IndependentFiring, RectifiedNormalMagnitudes, World, random_directions
from sae_toolkit.ground_truth import uniform_probabilities as uniform
from sae_toolkit.metrics import match_latents, reading_directions, score_with_controls
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


@dataclass(frozen=True, kw_only=True)
class Config:
    """One world, three transcoders."""

    n_features: int = 64
    """Features of the world, and latents of each transcoder."""
    d_read: int = 32
    """Dimensions in which features are read."""
    d_written: int = 40
    """Dimensions in which they are written."""
    l0: int = 3
    """Features active at a time, and k."""
    train: TrainConfig = TrainConfig(n_samples=1_000_000)
    """Budget, learning and the seed of everything."""
    eval_samples: int = 10_000
    """Held-out samples behind every score."""


SMOKE = Config(train=TrainConfig(n_samples=160_000, batch_size=256), eval_samples=2_000)
CAPTION = "Cosine between what each feature is written as and the decoder row of its latent, sorted."
HEADLINES = (
    Headline(name="written_cosine", label="Written", question="Do latents write what features become?"),
    Headline(name="reads_its_feature", label="Read", question="Do they answer to the same features?"),
)


def build_world(config: Config) -> ViewsSource:
    """The same features in random directions of two spaces."""
    n, seed = config.n_features, config.train.seed
    world = World(
        directions=random_directions(n, config.d_read, seed=seed),
        firing=IndependentFiring(probabilities=uniform(n, expected_l0=float(config.l0))),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(n, mean=1.0, std=0.25),
    )
    written = random_directions(n, config.d_written, seed=seed + 1)
    return ViewsSource(world, {"read": world.directions, "written": written})


def build_transcoders(config: Config) -> dict[str, AbstractSAE]:
    """One of each kind."""
    size, seed = {"d_in": config.d_read, "d_out": config.d_written, "d_sae": config.n_features}, config.train.seed
    return {
        "TopK": TopKTranscoder(TopKTranscoder.Config(**size, k=config.l0), seed=seed),
        "Skip": SkipTopKTranscoder(SkipTopKTranscoder.Config(**size, k=config.l0), seed=seed),
        "ReLU": ReluTranscoder(ReluTranscoder.Config(**size), seed=seed),
    }


def cosines(source: ViewsSource, sae: AbstractSAE) -> Tensor:
    """How near the latent of each feature comes to what the feature is written as."""
    return match_latents(source.directions["written"], sae.decoder_directions()).cosine.clamp_min(0)


def agreement(source: ViewsSource, sae: AbstractSAE) -> dict[str, float]:
    """How well latents and features match on both sides."""
    matched = match_latents(source.directions["written"], sae.decoder_directions())
    answers = (source.directions["read"].double() @ reading_directions(sae).T).argmax(dim=1)
    read = (answers == matched.latent).double()
    return {"written_cosine": float(cosines(source, sae).mean()), "reads_its_feature": float(read.mean())}


def main(config: Config, run: RunFolder) -> Report:
    """Trains all in one pass, and scores them beside an untrained one."""
    source, saes = build_world(config), build_transcoders(config)
    places = {"sites": dict.fromkeys(saes, "read"), "targets": dict.fromkeys(saes, "written")}
    learning = {"ReLU": replace(config.train.learning, target_l0=float(config.l0))}
    train(saes, source, config.train, learning=learning, **places, **run.training())
    ladder = score_with_controls(saes, source, **places, n_samples=config.eval_samples, seed=config.train.seed)
    everyone = {**saes, "untrained TopK": build_transcoders(config)["TopK"]}
    scores = [
        row
        for name, sae in everyone.items()
        for row in scores_of(name, {**agreement(source, sae), **ladder.saes.get(name, {})}, n=config.n_features)
    ]
    ranks = [float(rank) for rank in range(config.n_features)]
    lines = [Line(name=name, x=ranks, y=sorted(cosines(source, sae).tolist())) for name, sae in everyone.items()]
    chart = line_chart_panel("What latents write", CAPTION, lines, x_label="features, worst first", y_label="cosine")
    return build_experiment_report(
        config, run, scores, [chart], description=source.describe(), headlines=HEADLINES, saes=saes, ladder=ladder
    )


EXPECTED = (
    Expectation(score="written_cosine", sae="TopK", at_least=0.97),
    Expectation(score="reads_its_feature", sae="TopK", at_least=0.96),
    Expectation(score="written_cosine", sae="ReLU", at_least=0.95),
    Expectation(score="explained_variance", sae="TopK", at_least=0.75, at_most=0.83),
    Expectation(score="explained_variance", sae="Skip", at_least=0.84),
    Expectation(score="written_cosine", sae="Skip", at_most=0.8),
    Expectation(score="reads_its_feature", sae="untrained TopK", at_most=0.12),
    Expectation(score="written_cosine", sae="untrained TopK", at_most=0.4),
)
SMOKE_EXPECTED = (
    Expectation(score="written_cosine", sae="TopK", at_least=0.9),
    Expectation(score="reads_its_feature", sae="TopK", at_least=0.9),
    Expectation(score="written_cosine", sae="ReLU", at_least=0.85),
    Expectation(score="explained_variance", sae="Skip", at_least=0.8),
    Expectation(score="reads_its_feature", sae="untrained TopK", at_most=0.12),
)
