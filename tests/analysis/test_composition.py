import math

import pytest
import torch

from sae_toolkit.activations import random_heads, with_planted_composition
from sae_toolkit.analysis import composition_scores, random_composition

HEADS = random_heads(n_layers=3, n_heads=2, d_model=20, d_head=4, seed=3)
KINDS = ("q", "k", "v")


def whole(weights, kind, early, late):
    """With the d_model x d_model matrices, as the definitions say."""
    writes = weights.W_V[early] @ weights.W_O[early]
    reads = weights.W_Q[late] @ weights.W_K[late].T
    if kind == "k":
        reads = reads.T
    if kind == "v":
        reads = weights.W_V[late] @ weights.W_O[late]
    return float((writes @ reads).norm() / (writes.norm() * reads.norm()))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_whole_matrices(kind):
    found = composition_scores(HEADS)._asdict()[kind]
    for early in range(3):
        for late in range(3):
            for i in range(2):
                for j in range(2):
                    value = float(found[early, i, late, j])
                    if early < late:
                        assert value == pytest.approx(whole(HEADS, kind, (early, i), (late, j)), rel=1e-5)
                    else:
                        assert math.isnan(value)  # nothing flows backwards


@pytest.mark.parametrize(("d_model", "d_head", "published"), [(64, 16, 0.1259), (256, 64, 0.0629)])
def test_random_heads_score_one_over_the_root_of_d_model(d_model, d_head, published):
    chance = random_composition(d_model, d_head, 30, torch.Generator().manual_seed(0))
    assert chance.mean == pytest.approx(d_model**-0.5, rel=0.02)
    assert chance.mean == pytest.approx(published, abs=0.003)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_pair_stands_out_and_no_other(kind):
    chance = random_composition(64, 16, 60, torch.Generator().manual_seed(1))
    heads = random_heads(n_layers=2, n_heads=4, d_model=64, d_head=16, seed=0)
    changed = with_planted_composition(heads, kind, (0, 1), (1, 2), seed=0)
    found = composition_scores(changed)._asdict()
    z = chance.z(found[kind][0, :, 1])
    assert float(found[kind][0, 1, 1, 2]) == pytest.approx(0.253, abs=0.02)
    assert float(z[1, 2]) > 8
    z[1, 2] = 0.0
    assert float(z.abs().max()) < 6
    others = [found[other][0, 1, 1, 2] for other in KINDS if other != kind]
    assert float(chance.z(torch.stack(others)).abs().max()) < 6


def test_one_pair_has_no_deviation():
    with pytest.raises(ValueError, match="At least 2"):
        random_composition(8, 2, 1, torch.Generator())
