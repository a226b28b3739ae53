from math import isnan

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from toy import ToySource

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth.presets import hierarchical_world
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.evaluate import default_metrics, full_metrics
from sae_toolkit.metrics.firing_recovery import FiringRecovery
from sae_toolkit.metrics.firing_splitting import FiringSplitting
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows


def scores_of(coefficients, latents):
    """Directions are never asked for: those of this dictionary are zeros."""
    metric = FiringRecovery()
    x = torch.zeros(len(latents), 2)
    metric.update(ActivationBatch(x, coefficients=SparseRows.from_dense(coefficients)), SAEOutput(x, latents))
    return metric.compute(FixedDictionary(torch.zeros(latents.shape[1], 2), coder=LinearTopK(1)))


def on(n=1000, w=20, *, seed=0, rate=0.1):
    return (torch.rand(n, w, generator=torch.Generator().manual_seed(seed)) < rate).float()


class FiringSource(ToySource):
    """Knows which features fire, not where they point."""

    @property
    def feature_names(self):
        return ("a", "b")


def test_it_is_asked_where_firing_is_known_and_directions_are_not():
    def kinds(metrics):
        return {type(metric) for metric in metrics} & {FiringRecovery, FiringSplitting}

    assert kinds(default_metrics(FiringSource())) == {FiringRecovery}
    assert kinds(full_metrics(FiringSource())) == {FiringRecovery, FiringSplitting}
    assert kinds(full_metrics(ToySource())) == set()
    assert kinds(full_metrics(SuperpositionSource(hierarchical_world(0)))) == set()


def test_by_hand():
    # halves of four samples. Feature 0 is told by latent 1 without error: F1, AUROC 1. Feature 1 by latent 0, which in
    # the second half has a hit (sample 4) and a false alarm (5), one positive of it: F1 2/3, AUROC 5/6. 2 is silent.
    coefficients = torch.zeros(8, 3)
    coefficients[[0, 1, 4, 5], [0, 1, 1, 0]] = 1
    latents = torch.tensor([[0.0, 1], [1, 0], [0, 0], [0, 0], [1, 0], [1, 1], [0, 0], [0, 0]])
    scores = scores_of(coefficients, latents)
    assert scores["firing_f1"].value == pytest.approx((1 + 2 / 3) / 2)
    assert scores["firing_auroc"].value == pytest.approx((1 + 5 / 6) / 2)
    assert scores["firing_f1"].n == 2
    assert scores["firing_recall_at_0.8"].value == 0.5
    assert scores["firing_missed_rate"].value == 0


def test_perfect_permuted_rescaled_and_with_dead_latents():
    coefficients = on()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    scores = scores_of(coefficients, torch.cat([0.1 * coefficients[:, order], torch.zeros(1000, 5)], 1))
    for name in ("firing_f1", "firing_auroc", "firing_recall_at_0.8"):
        assert scores[name].value == 1, name
    assert scores["firing_missed_rate"].value == 0


def test_the_shuffled_floor_is_sklearns_f1_with_the_detector_of_another_feature():
    coefficients = on()
    scores = scores_of(coefficients, coefficients)
    truth = coefficients[500:].numpy()
    expected = np.mean([f1_score(truth[:, i], truth[:, (i + 10) % 20]) for i in range(20)])
    assert scores["firing_f1_shuffled"].value == pytest.approx(expected)


def test_latents_that_know_nothing_score_the_shuffled_floor():
    # the best of 200 by chance: in the selection half alone its F1 would be .3
    scores = scores_of(on(), on(w=200, seed=7))
    assert scores["firing_auroc"].low < 0.5 < scores["firing_auroc"].high
    assert scores["firing_missed_rate"].value == 1
    assert scores["firing_f1"].value == pytest.approx(scores["firing_f1_shuffled"].value, abs=0.06)


def test_a_latent_that_is_always_on_gets_the_f1_of_the_base_rate_and_no_more():
    coefficients = on(rate=0.5)
    naive = f1_score(coefficients[500:, 0], np.ones(500))
    scores = scores_of(coefficients, torch.ones(1000, 1))
    assert scores["firing_f1"].value == pytest.approx(naive, abs=0.03)  # .67 for knowing nothing
    assert scores["firing_f1"].value == pytest.approx(scores["firing_f1_shuffled"].value)  # and the floor says so
    assert scores["firing_auroc"].value == 0.5
    assert scores["firing_missed_rate"].value == 1


def test_silence_misses_everything():
    scores = scores_of(on(), torch.zeros(1000, 3))
    assert scores["firing_f1"].value == scores["firing_f1_shuffled"].value == 0
    assert scores["firing_missed_rate"].value == 1
    assert isnan(scores_of(torch.zeros(10, 2), torch.ones(10, 2))["firing_f1"].value)
