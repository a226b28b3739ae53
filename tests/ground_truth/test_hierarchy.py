import math

import pytest
import torch

from sae_toolkit.ground_truth.firing import IndependentFiring
from sae_toolkit.ground_truth.hierarchy import Hierarchy, one_per_group
from sae_toolkit.ground_truth.magnitudes import ConstantMagnitudes, RectifiedNormalMagnitudes, UniformMagnitudes

N = 20_000


def grow_dense(hierarchy, rates, magnitudes=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = IndependentFiring(probabilities=torch.tensor(rates)).draw(N, generator)
    entries = hierarchy.grow(draw, magnitudes or ConstantMagnitudes(), generator)
    dense = torch.zeros(N, len(rates))
    dense[entries.rows, entries.features] = entries.values
    assert int((dense != 0).sum()) == len(entries.rows)
    return dense


def check_rate(events, expected):
    assert abs(float(events.double().mean()) - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / len(events))


CHAIN = Hierarchy.from_children({0: [1, 2], 2: [3]}, n_features=5)


def test_a_literal_becomes_parents():
    assert CHAIN.parents.tolist() == [-1, 0, 0, 2, -1]
    assert CHAIN.depths.tolist() == [0, 1, 1, 2, 0]


def test_no_child_without_its_parent():
    active = grow_dense(CHAIN, [0.3, 0.5, 0.5, 0.5, 0.5]) > 0
    for child, parent in [(1, 0), (2, 0), (3, 2)]:
        assert not (active[:, child] & ~active[:, parent]).any()
        assert (active[:, child] & active[:, parent]).any()


def test_rates_multiply_down_the_tree():
    active = grow_dense(CHAIN, [0.3, 0.5, 0.6, 0.7, 0.4]) > 0
    for feature, rate in enumerate([0.3, 0.15, 0.18, 0.126, 0.4]):
        check_rate(active[:, feature], rate)


def test_a_parent_of_magnitude_zero_silences_its_children():
    magnitudes = RectifiedNormalMagnitudes(mean=torch.tensor([0.0, 1.0]), std=torch.tensor([1.0, 0.0]))
    dense = grow_dense(Hierarchy.from_children({0: [1]}, n_features=2), [1.0, 1.0], magnitudes)
    check_rate(dense[:, 0] > 0, 0.5)
    assert torch.equal(dense[:, 0] > 0, dense[:, 1] > 0)


def test_exclusive_siblings_leave_one_chosen_fairly():
    hierarchy = Hierarchy.from_children({0: [1, 2, 3], 4: [5]}, n_features=6, exclusive_siblings=True)
    active = grow_dense(hierarchy, [0.8, 1.0, 1.0, 1.0, 0.5, 1.0]) > 0
    assert torch.equal(active[:, 1:4].sum(1), active[:, 0].long())
    assert torch.equal(active[:, 5], active[:, 4])  # other families are not touched
    for child in (1, 2, 3):
        check_rate(active[:, child], 0.8 / 3)


def test_a_sibling_that_lost_has_no_children():
    hierarchy = Hierarchy.from_children({0: [1, 2], 1: [3]}, n_features=4, exclusive_siblings=True)
    active = grow_dense(hierarchy, [1.0, 1.0, 1.0, 1.0]) > 0
    assert torch.equal(active[:, 3], active[:, 1])
    check_rate(active[:, 3], 0.5)


def test_children_scale_with_their_parent():
    # constant 3 everywhere, references 2: roots 3, children 3 * 3/2 = 4.5, grandchildren 3 * 4.5/2 = 6.75
    hierarchy = Hierarchy.from_children({0: [1], 1: [2]}, n_features=3, reference_magnitudes=torch.full((3,), 2.0))
    dense = grow_dense(hierarchy, [1.0, 1.0, 1.0], ConstantMagnitudes(value=3.0))
    assert torch.equal(dense, torch.tensor([3.0, 4.5, 6.75]).expand(N, 3))


def test_scaling_is_per_sample():
    hierarchy = Hierarchy.from_children({0: [1]}, n_features=2, reference_magnitudes=torch.ones(2))
    dense = grow_dense(hierarchy, [1.0, 1.0], UniformMagnitudes())
    assert (dense[:, 1] <= dense[:, 0]).all()
    assert float(dense[:, 1].double().mean()) == pytest.approx(0.25, abs=0.01)  # E[U V] = 1/4


def test_one_per_group_takes_one_of_each():
    groups = torch.tensor([5, 2, 5, 5, 9, 2])
    counts = torch.zeros(6)
    for seed in range(600):
        places = one_per_group(groups, torch.Generator().manual_seed(seed))
        assert sorted(groups[places].tolist()) == [2, 5, 9]
        counts[places] += 1
    # binomial(600, 1/3) has standard deviation 11.5, binomial(600, 1/2) 12.2
    assert torch.allclose(counts, torch.tensor([200.0, 300, 200, 200, 600, 300]), atol=50)


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ({}, "no feature has a parent"),
        ({0: []}, "no children"),
        ({0: [9]}, "feature 9"),
        ({-1: [2]}, "feature -1"),
        ({0: [2], 1: [2]}, "two parents"),
        ({0: [2, 2]}, "two parents"),
        ({0: [0]}, "ancestors"),
        ({0: [1], 1: [2], 2: [0]}, "ancestors"),
        ({0: [1], 2: [3], 3: [2]}, "ancestors"),
    ],
)
def test_malformed_literals_raise(children, message):
    with pytest.raises(ValueError, match=message):
        Hierarchy.from_children(children, n_features=4)


@pytest.mark.parametrize("parents", [[-1, 4], [-2, 0], [-1, -1]])
def test_malformed_parents_raise(parents):
    with pytest.raises(ValueError, match="Hierarchy"):
        Hierarchy(parents=torch.tensor(parents))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("references", [[1.0], [1.0, 0.0], [1.0, math.nan]])
def test_impossible_references_raise(references):
    with pytest.raises(ValueError, match="reference_magnitudes"):
        Hierarchy(parents=torch.tensor([-1, 0]), reference_magnitudes=torch.tensor(references))


def test_describe_counts():
    described = CHAIN.describe()
    assert (described["n_children"], described["n_parents"], described["max_depth"]) == (3, 2, 2)
