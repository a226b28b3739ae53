"""AbsTopK, GroupMax, Multi-TopK and both Matryoshkas against dense references, also with k annealed."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from toy import check_loss_and_gradients, small_config, toy_batch, working_sae

from sae_toolkit import (
    AbsTopKSAE,
    AbstractSAE,
    BatchTopKSAE,
    GroupMaxSAE,
    MatryoshkaBatchTopKSAE,
    MatryoshkaTopKSAE,
    MultiTopKSAE,
    TopKSAE,
    TrainingSignals,
)
from sae_toolkit.saes.group_max import group_winners

SIGNALS = TrainingSignals(torch.arange(16) % 2 == 0, torch.tensor(1.0, dtype=torch.float64))
SHAPES = pytest.mark.parametrize("shape", [(40, 8), (5, 8, 8)], ids=["rows", "3-D"])
K = pytest.mark.parametrize(("progress", "k"), [(0.25, 5), (1.0, 3)], ids=["annealing", "annealed"])
"""From 7 to 3: half way through the first half of the run, k is 5."""


def top(pre: Tensor, k: int) -> Tensor:
    best = pre.topk(k)
    return torch.zeros_like(pre).scatter(-1, best.indices, best.values).relu()


def prepared(variant: type[AbstractSAE], shape: tuple[int, ...], progress: float, **changes: object) -> tuple:
    sae = working_sae(variant, initial_k=7, **changes).double().train()
    sae.progress = progress
    x = toy_batch(40).double().reshape(shape)
    x_n = sae.normaliser.normalise(x)
    return sae, x, x_n, (x_n - sae.b_dec) @ sae.W_enc + sae.b_enc


@SHAPES
@K
def test_abs_topk(shape: tuple[int, ...], progress: float, k: int) -> None:
    sae, x, x_n, pre = prepared(AbsTopKSAE, shape, progress)
    kth = pre.abs().sort(-1, descending=True).values[..., k - 1 : k]
    z = pre * (pre.abs() >= kth)
    assert (z < 0).any()
    check_loss_and_gradients(sae, x, SIGNALS, (x_n - z @ sae.W_dec - sae.b_dec).square().mean())


@SHAPES
@K
def test_group_max(shape: tuple[int, ...], progress: float, k: int) -> None:
    """16 latents in 3 groups are 6, 5 and 5; in 5 groups 4, 3, 3, 3 and 3."""
    sae, x, x_n, pre = prepared(GroupMaxSAE, shape, progress)
    bounds = {3: (0, 6, 11, 16), 5: (0, 4, 7, 10, 13, 16)}[k]
    z = torch.cat([top(pre[..., a:b], 1) for a, b in pairwise(bounds)], dim=-1)
    check_loss_and_gradients(sae, x, SIGNALS, (x_n - z @ sae.W_dec - sae.b_dec).square().mean())


@pytest.mark.parametrize(("k", "winners"), [(1, [[3]]), (2, [[0, 3]]), (3, [[0, 3, 4]]), (4, [[0, 3, 4, 5]])])
def test_group_winners_by_hand(k: int, winners: list[list[int]]) -> None:
    """Six latents (3 1 2 9 -5 -6) in one group, in threes, in twos, and as 2 + 2 + 1 + 1."""
    pre = torch.tensor([[3.0, 1.0, 2.0, 9.0, -5.0, -6.0]])
    assert group_winners(pre, k).tolist() == winners
    assert group_winners(pre[:0], k).shape == (0, k)


@SHAPES
@K
def test_multi_topk(shape: tuple[int, ...], progress: float, k: int) -> None:
    """4k are 12, or all 16 where 4k = 20 are more than there are."""
    sae, x, x_n, pre = prepared(MultiTopKSAE, shape, progress, multi_coefficient=0.3)
    losses = [(x_n - top(pre, n) @ sae.W_dec - sae.b_dec).square().mean() for n in (k, min(4 * k, 16))]
    check_loss_and_gradients(sae, x, SIGNALS, losses[0] + 0.3 * losses[1])
    assert (sae.encode(x) != 0).sum(-1).max() <= k  # the output is the one with k


@SHAPES
@K
@pytest.mark.parametrize("variant", [MatryoshkaTopKSAE, MatryoshkaBatchTopKSAE])
def test_matryoshka(variant: type[AbstractSAE], shape: tuple[int, ...], progress: float, k: int) -> None:
    """The mean over the prefixes of 4, 8 and all 16 latents."""
    sae, x, x_n, pre = prepared(variant, shape, progress, inner_prefixes=(0.25, 0.5))
    if variant is MatryoshkaTopKSAE:
        z = top(pre, k)
    else:
        z = pre.relu() * (pre >= pre.detach().flatten().sort(descending=True).values[k * 40 - 1])
    losses = [(x_n - z[..., :m] @ sae.W_dec[:m] - sae.b_dec).square().mean() for m in (4, 8, 16)]
    check_loss_and_gradients(sae, x, SIGNALS, sum(losses) / 3)


@pytest.mark.parametrize(("nested", "plain"), [(MatryoshkaTopKSAE, TopKSAE), (MatryoshkaBatchTopKSAE, BatchTopKSAE)])
def test_matryoshka_of_one_group_is_the_plain_variant(nested: type[AbstractSAE], plain: type[AbstractSAE]) -> None:
    one, other = working_sae(nested, inner_prefixes=()).double().train(), working_sae(plain).double().train()
    x = toy_batch(40).double()
    expected = torch.stack(list(other.loss_terms(x, other(x), SIGNALS).values())).sum()
    ours = torch.stack(list(one.loss_terms(x, one(x), SIGNALS).values())).sum()
    assert ours.item() == expected.item()


@pytest.mark.parametrize("prefixes", [(0.5, 0.25), (0.5, 0.5), (1.0,), (0.0,), (0.5, 0.51), (-0.5,), (1.5,)])
def test_impossible_prefixes_are_refused(prefixes: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="inner_prefixes="):
        small_config(MatryoshkaTopKSAE, inner_prefixes=prefixes)


def test_a_negative_coefficient_is_refused() -> None:
    with pytest.raises(ValueError, match="multi_coefficient=-1"):
        small_config(MultiTopKSAE, multi_coefficient=-1.0)
