"""Training what predicts another site than it reads, or reads several: known worlds, and runs that are resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToySource, gaussian, small_config

from sae_toolkit import (
    AbstractSAE,
    ArraySource,
    Checkpoints,
    LearningConfig,
    ReluCrosscoder,
    ReluTranscoder,
    RevivalConfig,
    SkipTopKTranscoder,
    TopKCrosscoder,
    TopKSAE,
    TopKTranscoder,
    TrainConfig,
    evaluate,
    train,
    weights_sha256,
)
from sae_toolkit.activations import ViewsSource, site_of
from sae_toolkit.ground_truth import World, random_directions
from sae_toolkit.ground_truth.firing import IndependentFiring
from sae_toolkit.ground_truth.magnitudes import RectifiedNormalMagnitudes
from sae_toolkit.ground_truth.probabilities import uniform_probabilities
from sae_toolkit.metrics import Reconstruction
from sae_toolkit.metrics.encoder_interference import reading_directions
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.saes import decoder_norms

N, D_READ, D_WRITE = 32, 16, 20
SITES, TARGETS = {"sae": "read"}, {"sae": "written"}


def views(**directions: torch.Tensor) -> ViewsSource:
    """32 features, 1.5 at a time, at any sites."""
    world = World(
        directions=torch.eye(N),
        firing=IndependentFiring(probabilities=uniform_probabilities(N, expected_l0=1.5)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(N, mean=1.0, std=0.25),
    )
    return ViewsSource(world, directions)


def mapped_world() -> ViewsSource:
    """What is written is a known map of known sparse features, more than either site has dimensions."""
    return views(read=random_directions(N, D_READ, seed=1), written=3 * random_directions(N, D_WRITE, seed=2))


def transcoder(kind: Any, **choices: Any) -> AbstractSAE:
    return kind(kind.Config(d_in=D_READ, d_out=D_WRITE, d_sae=N, **choices))


@pytest.mark.parametrize(("kind", "choices"), [(TopKTranscoder, {"k": 2}), (ReluTranscoder, {})])
def test_a_transcoder_finds_what_each_feature_is_read_and_written_as(kind: Any, choices: dict[str, Any]) -> None:
    source, sae = mapped_world(), transcoder(kind, **choices)
    learning = LearningConfig(target_l0=1.5 if kind is ReluTranscoder else None)
    train(sae, source, TrainConfig(n_samples=200_000, batch_size=256, learning=learning), sites=SITES, targets=TARGETS)
    written = match_latents(source.directions["written"] / 3, sae.decoder_directions())
    assert written.cosine.mean() > 0.9
    # the same latent reads the same feature: more than any other, it answers to it
    answers = source.directions["read"].double() @ reading_directions(sae).T
    assert (answers.argmax(1) == written.latent).double().mean() > 0.9


def test_a_linear_map_is_left_to_the_skip() -> None:
    x = gaussian(20_000, D_READ)
    y = x @ gaussian(D_READ, D_WRITE, seed=3) + 2
    source = ArraySource(torch.cat([x, y], dim=1), sites={"read": D_READ, "written": D_WRITE})
    sae = transcoder(SkipTopKTranscoder, k=2)
    train(sae, source, TrainConfig(n_samples=80_000, batch_size=256), sites=SITES, targets=TARGETS)
    skipped = sae.bypass(x).detach()
    unexplained = y - skipped - (y - skipped).mean(0)
    assert float(unexplained.square().sum() / (y - y.mean(0)).square().sum()) < 0.01
    there = site_of(source, "read", target="written")
    scores = evaluate(sae, there, n_samples=2_000, metrics=lambda: [Reconstruction()])["sae"]
    assert scores["explained_variance"].value > 0.99


def test_without_a_skip_it_cannot_be_explained() -> None:
    """Two of 32 latents speak for a full-rank map of Gaussian noise: what a skip is for."""
    x = gaussian(20_000, D_READ)
    source = ArraySource(
        torch.cat([x, x @ gaussian(D_READ, D_WRITE, seed=3)], dim=1), sites={"read": D_READ, "written": D_WRITE}
    )
    sae = transcoder(TopKTranscoder, k=2)
    train(sae, source, TrainConfig(n_samples=80_000, batch_size=256), sites=SITES, targets=TARGETS)
    there = site_of(source, "read", target="written")
    scores = evaluate(sae, there, n_samples=2_000, metrics=lambda: [Reconstruction()])["sae"]
    assert scores["explained_variance"].value < 0.7


def test_explained_variance_is_that_of_the_target() -> None:
    """By hand: 1 - sum ||y - y_hat||^2 / sum ||y - mean||^2 over the same samples."""
    source, sae = mapped_world(), transcoder(TopKTranscoder, k=2)
    train(sae, source, TrainConfig(n_samples=2_000, batch_size=100), sites=SITES, targets=TARGETS)
    there = site_of(source, "read", target="written")
    score = evaluate(sae, there, n_samples=1_000)["sae"]["explained_variance"]
    x = next(source.stream(1_024, seed=0, split="eval")).activations[:1_000]
    y = x[:, D_READ:]
    error = y - sae(x[:, :D_READ]).reconstruction.detach()
    assert score.value == pytest.approx(1 - float(error.square().sum() / (y - y.mean(0)).square().sum()), abs=1e-5)


SHARED, EARLY, LATE = slice(0, 16), slice(16, 24), slice(24, 32)


def crosscoder_world() -> ViewsSource:
    """16 features at both sites, 8 at the first alone, 8 at the second alone; the second is ten times as long."""
    first, second = random_directions(N, D_READ, seed=1), 10 * random_directions(N, D_READ, seed=2)
    first[LATE], second[EARLY] = 0, 0
    return views(first=first, second=second)


@pytest.mark.parametrize("kind", [TopKCrosscoder, ReluCrosscoder])
def test_relative_decoder_norms_say_where_a_feature_lives(kind: Any) -> None:
    source = crosscoder_world()
    choices = {"k": 2} if kind is TopKCrosscoder else {}
    sae = kind(kind.Config(d_in=2 * D_READ, site_widths=(D_READ, D_READ), d_sae=N, **choices))
    learning = LearningConfig(target_l0=1.5 if kind is ReluCrosscoder else None)
    config = TrainConfig(n_samples=200_000, batch_size=256, learning=learning)
    train(sae, source, config, sites={"sae": ("first", "second")})
    # as long as each site's normaliser makes it
    normalised = [rows / rows.norm() for rows in source.directions.values()]
    matched = match_latents(torch.nn.functional.normalize(torch.cat(normalised, dim=1)), sae.W_dec.detach())
    assert matched.cosine.mean() > 0.9
    norms = decoder_norms(sae.W_dec.detach(), (D_READ, D_READ))[matched.latent]
    second = norms[:, 1] / norms.sum(1)
    assert second[EARLY].median() < 0.1
    assert second[LATE].median() > 0.9
    assert 0.35 < second[SHARED].median() < 0.65
    scores = evaluate(sae, source, n_samples=2_000)["sae"]
    at_least = 0.8 if kind is TopKCrosscoder else 0.65  # an L1 penalty shrinks
    assert scores["explained_variance_of_first"].value > at_least
    assert scores["explained_variance_of_second"].value > at_least


def both(seed: int = 0) -> dict[str, AbstractSAE]:
    return {
        "transcoder": TopKTranscoder(TopKTranscoder.Config(d_in=D_READ, d_out=D_WRITE, d_sae=N, k=2), seed=seed),
        "skip": SkipTopKTranscoder(SkipTopKTranscoder.Config(d_in=D_READ, d_out=D_WRITE, d_sae=N, k=2), seed=seed),
        "crosscoder": ReluCrosscoder(
            ReluCrosscoder.Config(d_in=D_READ + D_WRITE, site_widths=(D_READ, D_WRITE), d_sae=N), seed=seed
        ),
        "sae": TopKSAE(TopKSAE.Config(d_in=D_WRITE, d_sae=N, k=2), seed=seed),
    }


PLACED = {
    "sites": {"transcoder": "read", "skip": "read", "crosscoder": ("read", "written"), "sae": "written"},
    "targets": {"transcoder": "written", "skip": "written"},
}


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    class StopsHere(Checkpoints):
        def save(self, snapshot: Any, saes: Any) -> Path:
            super().save(snapshot, saes)
            raise RuntimeError(f"stop at {snapshot.step}")

    learning = LearningConfig(revival=RevivalConfig(dead_after_samples=64, resample_every_samples=192))
    config = TrainConfig(n_samples=640, batch_size=32, preparation_samples=64, learning=learning)
    whole, resumed = both(), both(seed=5)
    train(whole, mapped_world(), config, **PLACED)
    with pytest.raises(RuntimeError, match="stop at 10"):
        train(both(), mapped_world(), config, **PLACED, checkpoints=StopsHere(tmp_path, every_samples=320))
    train(resumed, mapped_world(), config, **PLACED, resume_from=Checkpoints(tmp_path).latest())
    assert {name: weights_sha256(sae) for name, sae in resumed.items()} == {
        name: weights_sha256(sae) for name, sae in whole.items()
    }
    other = PLACED | {"targets": {"transcoder": "written", "skip": "read"}}
    narrow = both() | {"skip": SkipTopKTranscoder(SkipTopKTranscoder.Config(d_in=16, d_out=16, d_sae=N, k=2))}
    with pytest.raises(ValueError, match=r"targets\.skip: saved 'written', asked 'read'"):
        train(narrow, mapped_world(), config, **other, resume_from=Checkpoints(tmp_path).latest())


@pytest.mark.parametrize(
    ("sae", "placed", "message"),
    [
        (TopKTranscoder(small_config(TopKTranscoder, d_in=16)), {"sites": SITES}, "no target is given.*read, written"),
        (
            TopKTranscoder(small_config(TopKTranscoder, d_in=16)),
            {"sites": SITES, "targets": TARGETS},
            "d_out=16, but what it is to predict is 20 wide",
        ),
        (
            TopKSAE(small_config(TopKSAE, d_in=16)),
            {"sites": SITES, "targets": TARGETS},
            "TopKSAE reconstructs what it reads",
        ),
        (
            TopKTranscoder(small_config(TopKTranscoder, d_in=16)),
            {"sites": SITES, "targets": {"sae": "writen"}},
            "Did you mean 'written'",
        ),
        (
            TopKTranscoder(small_config(TopKTranscoder, d_in=16)),
            {"sites": SITES, "targets": {"other": "written"}},
            "targets: one is given for \\['other'\\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(sae: AbstractSAE, placed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(sae, mapped_world(), TrainConfig(n_samples=32, batch_size=32), **placed)


def test_of_a_source_with_one_site_a_transcoder_predicts_what_it_reads() -> None:
    sae = TopKTranscoder(small_config(TopKTranscoder))
    train(sae, ToySource(), TrainConfig(n_samples=16_000, batch_size=100))
    assert evaluate(sae, ToySource(), n_samples=2_000)["sae"]["explained_variance"].value > 0.5


def test_sites_of_an_array_must_name_every_column() -> None:
    with pytest.raises(ValueError, match="5 columns in all, but the rows have 6"):
        ArraySource(gaussian(50, 6), sites={"a": 2, "b": 3})
