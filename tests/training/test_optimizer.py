"""The unit-norm constraint: gradients lose their part along the row, rows keep length 1."""

import torch
from torch import nn
from toy import gaussian

from sae_toolkit import LearningConfig
from sae_toolkit.training.optimizer import (
    clip_gradients_,
    gradient_norm,
    make_optimizer,
    normalise_rows_,
    project_decoder_gradient_,
)


def test_the_projected_gradient_is_orthogonal_to_its_row_and_keeps_the_rest() -> None:
    rows = gaussian(6, 4).double()
    W_dec = nn.Parameter(rows / rows.norm(dim=1, keepdim=True))
    gradient = gaussian(6, 4, seed=1).double()
    W_dec.grad = gradient.clone()
    project_decoder_gradient_(W_dec)
    assert (W_dec.grad * W_dec).sum(1).abs().max() < 1e-14
    removed = gradient - W_dec.grad
    parallel = (removed * W_dec).sum(1, keepdim=True) * W_dec
    torch.testing.assert_close(removed, parallel.detach())


def test_rows_become_units_in_their_direction() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, -2.0], [1e-20, 0.0], [0.0, 0.0]])
    normalise_rows_(rows)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, -1.0], [1.0, 0.0], [0.0, 0.0]]))


def test_adam_takes_its_settings() -> None:
    optimizer = make_optimizer([nn.Parameter(torch.ones(2))], LearningConfig(learning_rate=0.3, beta1=0.4, beta2=0.5))
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert optimizer.param_groups[0]["betas"] == (0.4, 0.5)


def test_clipping_equals_torch() -> None:
    ours, theirs = (
        [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(1))] for _ in "ab"
    )
    for limit in (0.5, 1e3):
        for i, (a, b) in enumerate(zip(ours[:2], theirs[:2], strict=True)):  # the last has no gradient
            a.grad, b.grad = gaussian(*a.shape, seed=i), gaussian(*a.shape, seed=i)
        norm = gradient_norm(ours)
        clip_gradients_(ours, norm, limit=limit)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs, limit))
        for a, b in zip(ours[:2], theirs[:2], strict=True):
            torch.testing.assert_close(a.grad, b.grad)
