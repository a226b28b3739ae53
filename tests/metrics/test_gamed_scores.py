"""Dictionaries made to look good: which naive score each one games, and which of ours it does not."""

from math import isnan

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth import IndependentFiring, RectifiedNormalMagnitudes, World, random_directions
from sae_toolkit.metrics.co_activation import CoActivation
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.cross_talk import CrossTalk
from sae_toolkit.metrics.crowding import Crowding
from sae_toolkit.metrics.detection import LatentDetection
from sae_toolkit.metrics.encoder_interference import EncoderInterference
from sae_toolkit.metrics.evaluate import evaluate
from sae_toolkit.metrics.firing_recovery import FiringRecovery
from sae_toolkit.metrics.firing_splitting import FiringSplitting
from sae_toolkit.metrics.interference import Interference
from sae_toolkit.metrics.leakage import Leakage
from sae_toolkit.metrics.merging import Merging
from sae_toolkit.metrics.recovery import FeatureRecovery
from sae_toolkit.metrics.saelens import SAELensRecovery
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK, RefittedTopK
from sae_toolkit.sparse_rows import SparseRows

N, D = 32, 24
DIRECTIONS = random_directions(N, D, seed=0)
WORLD = World(
    directions=DIRECTIONS,
    firing=IndependentFiring(probabilities=torch.full((N,), 0.1)),
    magnitudes=RectifiedNormalMagnitudes.same_for_all(N, mean=1.0, std=0.25),
)
COEFFICIENTS = WORLD.sample_coefficients(4000, torch.Generator().manual_seed(0)).to_dense()
NEEDS_TRUTH = (FeatureRecovery, LatentDetection, Leakage, Merging, CrossTalk, SAELensRecovery)
ANYWHERE = (FiringRecovery, FiringSplitting, Interference, EncoderInterference, Crowding, CoActivation)


def built():
    return [*(kind(DIRECTIONS) for kind in NEEDS_TRUTH), *(kind() for kind in ANYWHERE)]


def scores_of(latents, decoder):
    """Every score of a dictionary with these rows that gives exactly these latents."""
    sae = FixedDictionary(decoder, coder=LinearTopK(1))
    x = COEFFICIENTS @ DIRECTIONS
    scores = {}
    for metric in built():
        for part in torch.arange(len(x)).split(1000):
            batch = ActivationBatch(x[part], coefficients=SparseRows.from_dense(COEFFICIENTS[part]))
            metric.update(batch, SAEOutput(latents[part] @ sae.directions, latents[part]))
        scores |= {name: score.value for name, score in metric.compute(sae).items()}
    return scores


def without(scores, *names):
    return {name: value for name, value in scores.items() if name not in names}


def junk(n, *, seed=1):
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(4000, n, generator=g) < 0.05).float(), torch.randn(n, D, generator=g)


@pytest.fixture(scope="module")
def perfect():
    return scores_of(COEFFICIENTS, DIRECTIONS)


BEST = {
    "mean_matched_cosine": 1,
    "recall_at_0.9": 1,
    "precision_at_0.9": 1,
    "missed_rate": 0,
    "splitting_rate": 0,
    "duplicate_fraction": 0,
    "activation_f1_tuned": 1,
    "activation_auroc": 1,
    "leakage_firing_rate": 0,
    "leakage_firing_ratio": 0,
    "leakage_energy": 0,
    "leakage_strongest": 0,
    "merging_rate": 0,
    "serving_rate": 1,
    "firing_f1": 1,
    "firing_auroc": 1,
    "firing_recall_at_0.8": 1,
    "firing_missed_rate": 0,
    "firing_splitting_rate": 0,
    "firing_duplicate_rate": 0,
    "firing_merging_rate": 0,
}


def test_perfect_knowledge_scores_the_best_there_is(perfect):
    assert {name: perfect[name] for name in BEST} == pytest.approx(BEST, abs=1e-6)


def test_order_and_scale_of_latents_change_no_score(perfect):
    g = torch.Generator().manual_seed(2)
    order, scales = torch.randperm(N, generator=g), 0.1 + torch.rand(N, generator=g)
    # a FixedDictionary makes rows unit: scales of rows cannot show, those of latents can, but for what is in raw units.
    # The error of a perfect reconstruction is rounding, so what explains it is none of our business
    changed = scores_of(COEFFICIENTS[:, order], (DIRECTIONS * scales[:, None])[order])
    assert without(changed, "crowding_error_share") == pytest.approx(
        without(perfect, "crowding_error_share"), abs=1e-6, nan_ok=True
    )
    raw = ("active_overlap", "crowding_error_share")
    scaled = scores_of(COEFFICIENTS * scales, DIRECTIONS)
    assert without(scaled, *raw) == pytest.approx(without(perfect, *raw), abs=1e-6, nan_ok=True)


def test_dead_latents_and_zero_rows_change_only_shares_of_latents(perfect):
    latents = torch.cat([COEFFICIENTS, torch.zeros(4000, 8)], 1)
    rows = torch.cat([DIRECTIONS, torch.randn(8, D, generator=torch.Generator().manual_seed(3))])
    counts_dead = ("saelens_uniqueness", "saelens_precision", "saelens_recall", "saelens_f1")  # as SAELens does
    scores = scores_of(latents, rows)
    assert without(scores, *counts_dead, "crowding_error_share") == pytest.approx(
        without(perfect, *counts_dead, "crowding_error_share"), abs=1e-6, nan_ok=True
    )


def test_junk_games_the_unsigned_matching_not_precision(perfect):
    fires, rows = junk(96)
    scores = scores_of(torch.cat([COEFFICIENTS, fires], 1), torch.cat([DIRECTIONS, rows]))
    assert scores["saelens_mcc"] == pytest.approx(1)
    assert scores["any_recall_at_0.9"] == 1
    assert scores["precision_at_0.9"] == 0.25
    assert scores["serving_rate"] == 0.25
    assert scores["merging_rate"] == scores["firing_merging_rate"] == 0  # junk stands for nothing: not in its place
    assert scores["welch_gap"] > perfect["welch_gap"]
    assert scores["active_overlap"] > perfect["active_overlap"]


def test_one_perfect_latent_games_the_unsigned_matching(perfect):
    scores = scores_of(COEFFICIENTS[:, :1], DIRECTIONS[:1])
    assert scores["saelens_mcc"] == pytest.approx(1)
    assert scores["precision_at_0.9"] == 1
    assert scores["mean_matched_cosine"] == pytest.approx(1 / N)
    assert scores["missed_rate"] == pytest.approx(1 - 1 / N)
    assert scores["activation_f1_tuned"] == pytest.approx(1 / N)
    assert scores["firing_missed_rate"] == pytest.approx(1 - 1 / N)
    assert scores["firing_f1"] < 0.25


def test_duplicates_game_precision_and_mean_best_cosine():
    scores = scores_of(COEFFICIENTS[:, :8].repeat(1, 4), DIRECTIONS[:8].repeat(4, 1))
    assert scores["precision_at_0.9"] == scores["mmcs_latent_to_feature"] == pytest.approx(1)
    assert scores["duplicate_fraction"] == 0.75
    assert scores["recall_at_0.9"] == scores["splitting_rate"] == scores["firing_duplicate_rate"] == 0.25
    assert scores["firing_splitting_rate"] == 0
    assert scores["active_overlap"] > 9 - 1  # each of four copies feels three others: 3^2, less what crosses
    assert scores["decoder_coherence"] == pytest.approx(1)


def test_a_negated_dictionary_games_unsigned_cosines():
    scores = scores_of(COEFFICIENTS, -DIRECTIONS)
    assert scores["saelens_mcc"] == pytest.approx(1)
    assert scores["recall_at_0.9"] == 0
    assert scores["missed_rate"] == 1
    # by firing alone it is perfect, which is why firing is not asked where directions are known
    assert scores["firing_f1"] == 1


def test_an_always_on_latent_games_recall_and_f1_of_frequent_features(perfect):
    latents = torch.cat([torch.ones(4000, 1), COEFFICIENTS[:, 1:]], 1)
    scores = scores_of(latents, DIRECTIONS)
    on = (COEFFICIENTS[:, 0] > 0).numpy()
    assert f1_score(on, np.ones(4000)) == pytest.approx(2 * 0.1 / 1.1, abs=0.02)  # P(fires | feature on) = 1
    one_of = 1 / N
    assert scores["leakage_firing_ratio"] == pytest.approx(one_of)  # 1 for it, 0 for all others
    assert scores["leakage_strongest"] == pytest.approx(one_of / 2, abs=1e-3)  # as strong with any feature as its own
    assert scores["firing_missed_rate"] == pytest.approx(one_of)
    assert perfect["activation_auroc"] - scores["activation_auroc"] == pytest.approx(one_of / 2)


def test_always_on_latents_alone_tell_nothing():
    scores = scores_of(torch.ones(4000, N), DIRECTIONS)
    assert scores["mean_matched_cosine"] == pytest.approx(1)  # directions alone are fooled
    assert scores["activation_auroc"] == scores["firing_auroc"] == 0.5
    assert scores["firing_f1"] == pytest.approx(scores["firing_f1_shuffled"], abs=1e-9)
    assert scores["leakage_firing_ratio"] == 1
    assert scores["serving_rate"] == 0
    assert isnan(scores["merging_rate"])


def test_one_giant_latent_games_shares_of_all_energy_not_means_over_latents(perfect):
    # junk that fires everywhere with a thousand times the strength: all of the code's energy is its own
    latents = torch.cat([COEFFICIENTS, torch.full((4000, 1), 1000.0)], 1)
    rows = torch.cat([DIRECTIONS, junk(1)[1]])
    naive = float((COEFFICIENTS.square().sum()) / latents.square().sum())
    assert naive < 1e-5
    scores = scores_of(latents, rows)
    for name in ("recall_at_0.9", "leakage_energy", "leakage_firing_ratio", "activation_auroc", "firing_f1"):
        assert scores[name] == pytest.approx(perfect[name], abs=1e-9), name
    assert scores["precision_at_0.9"] == pytest.approx(N / (N + 1))
    assert scores["active_overlap"] > 0.05  # the active ones feel it, weak as their cosines are


def test_pairs_merged_into_one_latent_game_reconstruction_not_merging():
    latents = COEFFICIENTS[:, ::2] + COEFFICIENTS[:, 1::2]
    scores = scores_of(latents, DIRECTIONS[::2] + DIRECTIONS[1::2])
    assert scores["merging_rate"] > 0.9
    assert scores["firing_merging_rate"] == 1
    assert scores["recall_at_0.9"] == 0


def test_two_random_dictionaries_agree_within_their_intervals():
    # chance inside the floor's interval, for scores with one; 3 in 100 pairs of 95 % intervals do not overlap if the
    # values differ by as much as chance says
    source = SuperpositionSource(WORLD)
    dictionaries = {
        name: FixedDictionary(random_directions(N, D, seed=seed), coder=RefittedTopK(3))
        for name, seed in (("a", 10), ("b", 11))
    }
    first, second = evaluate(dictionaries, source, n_samples=4000, metrics=built).values()
    apart = [
        name
        for name, score in first.items()
        if score.low is not None
        and second[name].low is not None
        and (score.high < second[name].low or second[name].high < score.low)
    ]
    assert len(apart) <= 0.05 * len(first), apart
    assert first["decoder_coherence"].value == pytest.approx(first["decoder_coherence"].floor, rel=0.2)
