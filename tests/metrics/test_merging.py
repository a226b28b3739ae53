from math import isnan

import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.merging import Merging
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows


def scores_of(directions, coefficients, latents, decoder):
    metric = Merging(directions)
    x = torch.zeros(len(latents), directions.shape[1])
    metric.update(ActivationBatch(x, coefficients=SparseRows.from_dense(coefficients)), SAEOutput(x, latents))
    scores = metric.compute(FixedDictionary(decoder, coder=LinearTopK(1)))
    return {name: score.value for name, score in scores.items()}


def on(n=400, w=6, *, seed=0, rate=0.2):
    return (torch.rand(n, w, generator=torch.Generator().manual_seed(seed)) < rate).float()


def test_by_hand():
    # latent 0 lies between features 0 and 1 (cos .71 each) and fires with either: AUROC of feature 0: it fires in its
    # sample and, of three others, in one: 5/6; of feature 1 the same: merged. Latent 1 is feature 2's: AUROC 1.
    coefficients = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    latents = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 0]])
    decoder = torch.tensor([[1.0, 1, 0], [0, 0, 1]])
    assert scores_of(torch.eye(3), coefficients, latents, decoder) == {"merging_rate": 0.5, "serving_rate": 1}


def test_perfect_permuted_and_rescaled_latents_merge_nothing():
    coefficients, order = on(), [3, 1, 0, 5, 2, 4]
    scores = scores_of(torch.eye(6), coefficients, 7 * coefficients[:, order], torch.eye(6)[order] * 0.2)
    assert scores == {"merging_rate": 0, "serving_rate": 1}


def test_close_features_are_not_merged_by_their_own_pure_latents():
    # cosine .6 between the true features themselves: the naive count of features with |cos| >= .4 says 2 per latent
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    coefficients = on(w=2)
    assert scores_of(directions, coefficients, coefficients, directions) == {"merging_rate": 0, "serving_rate": 1}


def test_features_that_fire_together_are_not_merged_by_pure_latents():
    # firing alone would say that either latent serves both (AUROC .9): the directions are orthogonal
    first = on(w=1)
    coefficients = torch.cat([first, first * on(w=1, seed=1, rate=0.9)], 1)
    assert scores_of(torch.eye(2), coefficients, coefficients, torch.eye(2))["merging_rate"] == 0


def test_every_pair_in_one_latent_is_the_maximum():
    coefficients = on()
    latents = coefficients[:, ::2] + coefficients[:, 1::2]
    decoder = torch.eye(6)[::2] + torch.eye(6)[1::2]
    assert scores_of(torch.eye(6), coefficients, latents, decoder)["merging_rate"] == 1


def test_junk_dead_and_zero_latents_do_not_dilute_the_rate():
    coefficients = on()
    merged = coefficients[:, :1] + coefficients[:, 1:2]
    latents = torch.cat([merged, coefficients[:, 2:], on(w=90, seed=5), torch.zeros(400, 1)], 1)
    rows = torch.cat(
        [
            torch.eye(6)[:1] + torch.eye(6)[1:2],
            torch.eye(6)[2:],
            torch.randn(89, 6, generator=torch.Generator().manual_seed(1)),
            torch.zeros(1, 6),  # fires, but writes nothing
            torch.eye(6)[:1],  # dead
        ]
    )
    scores = scores_of(torch.eye(6), coefficients, latents, rows)
    assert scores["merging_rate"] == pytest.approx(1 / 5)
    assert scores["serving_rate"] == pytest.approx(5 / 95)


def test_nothing_served_has_no_answer():
    coefficients = on()
    scores = scores_of(torch.eye(6), coefficients, on(w=2, seed=3), torch.eye(6)[:2])
    assert isnan(scores["merging_rate"])
    assert scores["serving_rate"] == 0
