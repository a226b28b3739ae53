"""Transcoders against Dunefsky et al. 2024 and Paulo et al. 2025: y_hat = z W_dec + b_dec (+ x W_skip)."""

import pytest
import torch
from torch import Tensor
from toy import gaussian, toy_batch

from sae_toolkit import AbstractSAE, ReluTranscoder, SkipTopKTranscoder, TopKTranscoder, TrainingSignals
from sae_toolkit.saes.coders import MatchingPursuit
from sae_toolkit.saes.sparse_inference import SparseInference

SIGNALS = TrainingSignals(torch.zeros(16, dtype=torch.bool), torch.tensor(0.7, dtype=torch.float64))
SIZE = {"d_in": 8, "d_out": 5, "d_sae": 16}


def inputs_and_targets(n: int = 40) -> tuple[Tensor, Tensor]:
    x = toy_batch(n).double()
    return x, 3 * x @ gaussian(8, 5, seed=4).double() + 2


def working(transcoder: AbstractSAE) -> AbstractSAE:
    """In training mode and double precision, every parameter and buffer away from its initial value."""
    x, y = inputs_and_targets(200)
    transcoder.double().normaliser.fit_(x)
    transcoder.target_normaliser.fit_(y)
    with torch.no_grad():
        for i, parameter in enumerate(transcoder.parameters()):
            parameter.add_(gaussian(*parameter.shape, seed=50 + i).double(), alpha=0.2)
    return transcoder.train()


def check_against(transcoder: AbstractSAE, expected: Tensor, x: Tensor, y: Tensor) -> None:
    ours = torch.stack(list(transcoder.loss_terms(y, transcoder(x), SIGNALS).values())).sum()
    torch.testing.assert_close(ours, expected)
    names, parameters = zip(*transcoder.named_parameters(), strict=True)
    for name, mine, theirs in zip(
        names, torch.autograd.grad(ours, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(mine, theirs, msg=lambda text, name=name: f"{name}: {text}")


def top_k(pre: Tensor, k: int) -> Tensor:
    top = pre.topk(k)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values).relu()


@pytest.mark.parametrize("normaliser", ["none", "per_dimension", "whitening"])
def test_the_loss_and_gradients_of_topk(normaliser: str) -> None:
    config = TopKTranscoder.Config(**SIZE, k=3, normaliser=normaliser, target_normaliser=normaliser)
    transcoder, (x, y) = working(TopKTranscoder(config)), inputs_and_targets()
    z = top_k(transcoder.normaliser.normalise(x) @ transcoder.W_enc + transcoder.b_enc, 3)
    error = transcoder.target_normaliser.normalise(y) - (z @ transcoder.W_dec + transcoder.b_dec)
    check_against(transcoder, error.square().mean(), x, y)


def test_the_loss_and_gradients_with_a_skip() -> None:
    config = SkipTopKTranscoder.Config(**SIZE, k=3, target_normaliser="per_dimension")
    transcoder, (x, y) = working(SkipTopKTranscoder(config)), inputs_and_targets()
    read = transcoder.normaliser.normalise(x)
    z = top_k(read @ transcoder.W_enc + transcoder.b_enc, 3)
    found = z @ transcoder.W_dec + read @ transcoder.W_skip + transcoder.b_dec
    check_against(transcoder, (transcoder.target_normaliser.normalise(y) - found).square().mean(), x, y)


def test_the_loss_and_gradients_of_relu() -> None:
    """mse + c w sum_i z_i ||W_dec_i|| / sqrt(d_out), with c = 0.3 and w = 0.7."""
    transcoder = working(ReluTranscoder(ReluTranscoder.Config(**SIZE, l1_coefficient=0.3)))
    x, y = inputs_and_targets()
    z = (transcoder.normaliser.normalise(x) @ transcoder.W_enc + transcoder.b_enc).relu()
    error = transcoder.target_normaliser.normalise(y) - (z @ transcoder.W_dec + transcoder.b_dec)
    l1 = (z * transcoder.W_dec.norm(dim=1)).sum(1).mean()
    check_against(transcoder, error.square().mean() + 0.3 * 0.7 * l1 / 5**0.5, x, y)


def test_by_hand() -> None:
    """x = (3, -1), W_enc = identity, b_enc = (0, 2): z = (3, 1), the larger is kept. W_dec = (1 0 2), b_dec = (0 1 0),
    W_skip = rows (0 0 1), (1 0 0): y_hat = 3 (1 0 2) + (0 1 0) + 3 (0 0 1) - (1 0 0) = (2 1 9)."""
    config = SkipTopKTranscoder.Config(d_in=2, d_out=3, d_sae=2, k=1, normaliser="none", target_normaliser="none")
    transcoder = SkipTopKTranscoder(config)
    with torch.no_grad():
        transcoder.W_enc.copy_(torch.eye(2))
        transcoder.b_enc.copy_(torch.tensor([0.0, 2.0]))
        transcoder.W_dec.copy_(torch.tensor([[1.0, 0, 2], [5, 5, 5]]))
        transcoder.b_dec.copy_(torch.tensor([0.0, 1, 0]))
        transcoder.W_skip.copy_(torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    out = transcoder.eval()(torch.tensor([3.0, -1.0]))
    assert out.dense_latents().tolist() == [3, 0]
    assert out.reconstruction.tolist() == [2, 1, 9]
    assert transcoder.bypass(torch.tensor([3.0, -1.0])).tolist() == [-1, 0, 3]


def test_a_skip_starts_at_the_ridge_regression_of_the_target() -> None:
    """x is +-e1, +-e2 (square sums 2), the map (1 0 0), (0 0 2): the penalty d_in = 2 halves it."""
    config = SkipTopKTranscoder.Config(d_in=2, d_out=3, d_sae=4, k=1)
    transcoder = SkipTopKTranscoder(config)
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    transcoder.fit_bypass_(x, x @ torch.tensor([[1.0, 0, 0], [0, 0, 2]]) + 5)
    torch.testing.assert_close(transcoder.W_skip.detach(), torch.tensor([[0.5, 0, 0], [0, 0, 1]]))


def test_a_fresh_skip_adds_nothing() -> None:
    transcoder = SkipTopKTranscoder(SkipTopKTranscoder.Config(**SIZE, k=3)).eval()
    assert not transcoder.bypass(toy_batch(4)).any()


def test_what_a_transcoder_has_not_seen_is_not_solved_for() -> None:
    with pytest.raises(ValueError, match="SparseInference: TopKTranscoder predicts what it has not seen"):
        SparseInference(TopKTranscoder(TopKTranscoder.Config(**SIZE, k=3)), MatchingPursuit(3))


def test_an_impossible_width_is_refused() -> None:
    with pytest.raises(ValueError, match="d_out=0 given"):
        TopKTranscoder.Config(d_in=8, d_out=0, d_sae=16, k=3)
