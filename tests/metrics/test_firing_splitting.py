from math import isnan

import pytest
import torch

import sae_toolkit.metrics.firing_splitting as firing_splitting_file
from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.firing_splitting import FiringSplitting
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

SPLIT, COPIED, MERGED = "firing_splitting_rate", "firing_duplicate_rate", "firing_merging_rate"


def scores_of(coefficients, latents):
    metric = FiringSplitting()
    x = torch.zeros(len(latents), 2)
    metric.update(ActivationBatch(x, coefficients=SparseRows.from_dense(coefficients)), SAEOutput(x, latents))
    scores = metric.compute(FixedDictionary(torch.zeros(latents.shape[1], 2), coder=LinearTopK(1)))
    return {name: score.value for name, score in scores.items()}


def on(n=2000, w=5, *, seed=0, rate=0.2):
    return (torch.rand(n, w, generator=torch.Generator().manual_seed(seed)) < rate).float()


def values(split, copied, merged):
    return {SPLIT: split, COPIED: copied, MERGED: pytest.approx(merged, nan_ok=True)}


def test_by_hand():
    # 4 samples per half, feature 0 on in two of them, feature 1 in one. Latents 0 and 1 take one of feature 0's two
    # samples each: precise, recall 1/2, never together: pieces. Latents 2 and 3 are two copies of feature 1.
    coefficients = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 0]]).repeat(2, 1)
    latents = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 0]]).repeat(2, 1)
    # every AUROC has fewer than 20 positives behind it, so that merging has no answer
    assert scores_of(coefficients, latents) == values(0.5, 0.5, float("nan"))
    assert scores_of(coefficients.repeat(20, 1), latents.repeat(20, 1)) == values(0.5, 0.5, 0)


def test_one_latent_each_in_any_order_and_scale():
    coefficients = on()
    latents = torch.cat([coefficients[:, [4, 2, 0, 1, 3]] * 0.01, torch.zeros(2000, 1)], 1)
    assert scores_of(coefficients, latents) == values(0, 0, 0)


def test_pairs_of_independent_features_in_one_latent_are_merged():
    coefficients = on(w=6)
    latents = coefficients[:, ::2] + coefficients[:, 1::2]
    assert scores_of(coefficients, latents) == values(0, 0, 1)


def test_latents_may_be_looked_at_a_few_at_a_time(monkeypatch):
    coefficients = on(w=6)
    latents = torch.cat([coefficients[:, :1] + coefficients[:, 1:2], coefficients[:, 2:], on(w=20, seed=8)], 1)
    at_once = scores_of(coefficients, latents)
    monkeypatch.setattr(firing_splitting_file, "BLOCK_ENTRIES", 18)
    assert scores_of(coefficients, latents) == at_once


def test_junk_does_not_dilute_the_merging_rate():
    coefficients = on(w=6)
    latents = torch.cat([coefficients[:, :1] + coefficients[:, 1:2], coefficients[:, 2:], on(w=100, seed=8)], 1)
    assert scores_of(coefficients, latents) == values(0, 0, 1 / 5)


def test_features_that_fire_together_do_not_pass_for_merged_ones():
    # either latent tells the other feature, too (AUROC .9), but not while its own is off
    first = on(w=1)
    coefficients = torch.cat([first * on(w=1, seed=s, rate=0.9) for s in (1, 2)], 1)
    assert scores_of(coefficients, coefficients) == values(0, 0, 0)


def test_a_childs_latent_is_no_part_of_its_parent_which_it_always_fires_with():
    parent = on(w=1, rate=0.4)
    coefficients = torch.cat([parent, parent * on(w=1, seed=1, rate=0.5)], 1)
    assert scores_of(coefficients, coefficients) == values(0, 0, 0)


def test_a_parents_latent_is_not_its_children_merged():
    # it tells each of two exclusive children while the other is off (AUROC above .8), but neither while the parent is
    parent, coin = on(w=1, rate=0.3), on(w=1, seed=1, rate=0.5)
    coefficients = torch.cat([parent, parent * coin, parent * (1 - coin)], 1)
    assert scores_of(coefficients, coefficients)[MERGED] == 0
    # without a latent of the parent's own the same latent is both children's: nothing else to call it
    assert scores_of(coefficients[:, 1:], coefficients[:, :1])[MERGED] == 1


def test_latents_that_fire_at_random_are_no_part_of_a_feature_that_is_nearly_always_on():
    # P(feature on | latent fires) = .9 > .7 for any latent, so the base rate is taken out
    coefficients = on(w=1, rate=0.9)
    assert scores_of(coefficients, on(w=10, seed=2, rate=0.5)) == values(0, 0, float("nan"))


def test_a_split_must_hold_on_the_other_half():
    coefficients = on(w=1)
    pieces = torch.cat([coefficients * on(w=1, seed=1, rate=0.5)] * 2, 1)
    pieces[:, 1] = coefficients[:, 0] - pieces[:, 0]
    assert scores_of(coefficients, pieces)[SPLIT] == 1
    pieces[1000:, 1] = on(n=1000, w=1, seed=3)[:, 0]
    assert scores_of(coefficients, pieces)[SPLIT] == 0


def test_silence_and_features_that_never_fire():
    scores = scores_of(on(), torch.zeros(2000, 3))
    assert (scores[SPLIT], scores[COPIED]) == (0, 0)
    assert isnan(scores[MERGED])
    assert all(isnan(value) for value in scores_of(torch.zeros(20, 2), on(n=20)).values())
