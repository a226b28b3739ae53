"""The unit-norm constraint: gradients lose their part along the row, rows keep length 1."""

import pytest
import torch
from torch import nn
from toy import gaussian

from sae_toolkit import LearningConfig
from sae_toolkit.training.optimizer import (
    FusedAdam,
    gradient_norms,
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


def parameters_and_optimizer() -> tuple[dict[str, nn.Parameter], FusedAdam]:
    named = {
        "matrix": nn.Parameter(gaussian(4, 3)),
        "by columns": nn.Parameter(gaussian(3, 4).T),
        "vector": nn.Parameter(gaussian(5)),
        "idle": nn.Parameter(gaussian(1)),
    }
    return named, make_optimizer(named.values(), LearningConfig())


@pytest.mark.parametrize("limit", [0.5, 1e3, None])
def test_a_clipped_step_is_one_after_torch_has_clipped(limit: float | None) -> None:
    """Two steps, so that the moments count too; "idle" has no gradient."""
    (ours, our_optimizer), (theirs, their_optimizer) = parameters_and_optimizer(), parameters_and_optimizer()
    for step in range(2):
        for i, name in enumerate(("matrix", "by columns", "vector")):
            ours[name].grad, theirs[name].grad = (gaussian(*ours[name].shape, seed=10 * step + i) for _ in "ab")
        norms = gradient_norms(ours.items())
        norm = torch.stack(list(norms.values())).norm()
        our_optimizer.clipped_step_(norm, torch.tensor(True), limit=limit)
        clipped_norm = nn.utils.clip_grad_norm_(theirs.values(), limit or 1e9)
        their_optimizer.step()
        torch.testing.assert_close(norm, clipped_norm)
        assert norms.keys() == {"matrix", "by columns", "vector"}
        for name, parameter in ours.items():
            torch.testing.assert_close(parameter, theirs[name])


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    named, optimizer = parameters_and_optimizer()
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.clipped_step_(torch.tensor(1.0), torch.tensor(True), limit=1.0)
    before = [parameter.detach().clone() for parameter in named.values()]
    moments = [{key: value.clone() for key, value in optimizer.state[p].items()} for p in named.values()]
    for parameter in named.values():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.clipped_step_(torch.tensor(float("nan")), torch.tensor(False), limit=1.0)
    for parameter, old, old_state in zip(named.values(), before, moments, strict=True):
        assert torch.equal(parameter, old)
        assert all(torch.equal(optimizer.state[parameter][key], value) for key, value in old_state.items())
