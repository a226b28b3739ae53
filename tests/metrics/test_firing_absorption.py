from math import isnan

import pytest
import torch
from toy import ToySource

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth.presets import hierarchical_world
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.evaluate import full_metrics
from sae_toolkit.metrics.firing_absorption import FiringAbsorption, families_of
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

RATE, CONTROL = "firing_absorption_rate", "firing_absorption_control"
WITH, WITHOUT = "firing_parent_recall_with_child", "firing_parent_recall_without_child"


def scores_of(coefficients, latents, pairs):
    metric = FiringAbsorption(torch.tensor(pairs))
    x = torch.zeros(len(latents), 2)
    metric.update(ActivationBatch(x, coefficients=SparseRows.from_dense(coefficients)), SAEOutput(x, latents))
    scores = metric.compute(FixedDictionary(torch.zeros(latents.shape[1], 2), coder=LinearTopK(1)))
    return {name: score.value for name, score in scores.items()}


def on(n=4000, w=1, *, seed=0, rate=0.3):
    return (torch.rand(n, w, generator=torch.Generator().manual_seed(seed)) < rate).float()


@pytest.fixture
def families():
    """Four families of a parent (even) and a child (odd), independent of each other."""
    parents = on(w=4)
    children = parents * on(w=4, seed=1, rate=0.5)
    return torch.stack([parents, children], dim=2).reshape(4000, 8)


PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_by_hand():
    # 20 times in each half: with both on, the parent's latent is silent in one of two samples, where the child's fires
    coefficients = torch.tensor([[1.0, 1], [1, 1], [1, 0], [1, 0], [1, 0], [0, 0]]).repeat(40, 1)
    latents = torch.tensor([[1.0, 1], [0, 1], [1, 0], [1, 0], [0, 0], [0, 0]]).repeat(40, 1)
    scores = scores_of(coefficients, latents, [[0, 1]])
    assert (scores[RATE], scores[WITH]) == (0.5, 0.5)
    assert scores[WITHOUT] == pytest.approx(2 / 3)
    assert isnan(scores[CONTROL])  # there is no unrelated feature


def test_pure_latents_absorb_nothing(families):
    assert scores_of(families, families, PAIRS) == {RATE: 0, WITH: 1, WITHOUT: 1, CONTROL: 0}


def test_full_absorption_and_its_control(families):
    parents, children = families[:, ::2], families[:, 1::2]
    latents = torch.cat([parents * (1 - children), children], 1)
    # the control looks where no child is on: what the parents' latents lack elsewhere is not held against them
    assert scores_of(families, latents, PAIRS) == {RATE: 1, WITH: 0, WITHOUT: 1, CONTROL: 0}


def test_bad_detectors_show_in_the_control(families):
    # parents' latents that miss half of everything, whatever else is on, and children's that miss nothing: 1/2; the
    # control's other feature may be a parent, whose latent misses half, too: 1/4
    parents, children = families[:, ::2], families[:, 1::2]
    scores = scores_of(families, torch.cat([parents * on(w=4, seed=7, rate=0.5), children], 1), PAIRS)
    assert scores[RATE] == pytest.approx(0.5, abs=0.1)
    assert 0.2 < scores[CONTROL] < 0.55


def test_independent_children_give_next_to_nothing(families):
    # pairs of parents that have nothing to do with each other, latents that miss 3 % at random
    parents = families[:, ::2]
    latents = parents * on(w=4, seed=5, rate=0.985)
    scores = scores_of(parents, latents, [[0, 1], [2, 3]])
    assert 0 < scores[RATE] < 0.02
    assert scores[CONTROL] < 0.02


def test_a_merged_latent_is_not_absorption(families):
    # one latent for parent and child: silent where the other fires is impossible
    assert scores_of(families, families[:, ::2], PAIRS)[RATE] == 0


def test_junk_finds_no_parent_which_the_recall_shows(families):
    scores = scores_of(families, on(w=30, seed=9, rate=0.05), PAIRS)
    assert scores[RATE] < 0.1
    assert scores[WITHOUT] < 0.1


def test_order_scale_and_dead_latents_change_nothing(families):
    latents = families * on(w=8, seed=3, rate=0.9)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    changed = torch.cat([torch.zeros(4000, 2), 9 * latents[:, order]], 1)
    assert scores_of(families, changed, PAIRS) == scores_of(families, latents, PAIRS)


def test_rare_pairs_and_silence_have_no_answer(families):
    rare = families.clone()
    rare[:, 1] *= torch.arange(4000) % 200 == 0
    assert scores_of(rare, rare, [[0, 1]])[RATE] != 0
    silent = scores_of(families, torch.zeros(4000, 3), PAIRS)
    assert (silent[RATE], silent[WITH]) == (0, 0)


def test_families_are_what_chains_of_pairs_connect():
    found = families_of(torch.tensor([[0, 1], [1, 4], [2, 3]]), 6)
    assert [[int(a == b) for b in found] for a in found[[0, 2, 5]]] == [
        [1, 1, 0, 0, 1, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1],
    ]


class FiringSource(ToySource):
    """Knows which features fire and which with which, not where they point."""

    pairs = None

    @property
    def feature_names(self):
        return ("a", "b")

    @property
    def hierarchy_pairs(self):
        return self.pairs


def test_it_is_asked_where_a_hierarchy_is_known_and_directions_are_not():
    def asked(source):
        return any(isinstance(metric, FiringAbsorption) for metric in full_metrics(source))

    source = FiringSource()
    assert not asked(source)
    source.pairs = torch.tensor([[0, 1]])
    assert asked(source)
    assert not asked(SuperpositionSource(hierarchical_world(0)))
