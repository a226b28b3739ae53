import math

import pytest
import torch

from sae_toolkit.ground_truth.exclusive import ExclusiveFiring

N = 40_000
RATES = torch.tensor([0.2, 0.01, 0.5, 0.3, 0.0, 0.25])
GROUPS = torch.tensor([2, 0, 0, 2, 2, 5])  # groups need be neither contiguous nor without gaps


def sample_dense(firing, n_samples=N, seed=0):
    fired = firing.sample(n_samples, torch.Generator().manual_seed(seed))
    mask = torch.zeros(n_samples, firing.n_features, dtype=torch.bool)
    mask[fired.rows, fired.features] = True
    assert int(mask.sum()) == len(fired.rows)
    return mask


def test_members_of_a_group_never_fire_together():
    mask = sample_dense(ExclusiveFiring(probabilities=RATES, groups=GROUPS))
    for group in GROUPS.unique():
        assert mask[:, group == GROUPS].sum(1).max() == 1


def test_marginals_are_exact():
    found = sample_dense(ExclusiveFiring(probabilities=RATES, groups=GROUPS)).double().mean(0)
    assert ((found - RATES).abs() <= 4.5 * (RATES * (1 - RATES) / N).sqrt()).all()


def test_groups_are_independent():
    mask = sample_dense(ExclusiveFiring(probabilities=RATES, groups=GROUPS)).double()
    assert abs(float(torch.corrcoef(mask[:, [2, 3]].T)[0, 1])) < 4.5 / math.sqrt(N)


def test_pairs_are_neighbours():
    mask = sample_dense(ExclusiveFiring.pairs(torch.full((5,), 0.4)), 5000)
    assert not (mask[:, 0] & mask[:, 1]).any()
    assert not (mask[:, 2] & mask[:, 3]).any()
    assert (mask[:, 1] & mask[:, 2]).any()
    assert (mask[:, 3] & mask[:, 4]).any()


def test_a_full_group_always_has_one_member():
    mask = sample_dense(ExclusiveFiring.pairs(torch.tensor([0.25, 0.75])), 2000)
    assert (mask.sum(1) == 1).all()


def test_more_than_certain_raises():
    with pytest.raises(ValueError, match=r"group 1 sum to 1\.2"):
        ExclusiveFiring.pairs(torch.tensor([0.1, 0.1, 0.6, 0.6]))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("groups", [[0], [0, -1]])
def test_wrong_groups_raise(groups):
    with pytest.raises(ValueError, match="group numbers"):
        ExclusiveFiring(probabilities=torch.tensor([0.1, 0.1]), groups=torch.tensor(groups))
