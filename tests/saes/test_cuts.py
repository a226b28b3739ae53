"""Elementwise cuts against masks written out."""

import pytest
import torch
from toy import gaussian

from sae_toolkit.saes.active_latents import active_counts
from sae_toolkit.saes.cuts import kept_above, kept_inside, ones_inside
from sae_toolkit.sparse_rows import SparseRows

MARGINS = torch.tensor([-0.5, -0.25, -0.1, 0.0, 1e-45, 0.25, 0.5] * 5)  # long enough for vectorised kernels
"""Borders of the window, 0 and the smallest positive number among them."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_kept_and_where_gradients_go(dtype: torch.dtype) -> None:
    margins = MARGINS.to(dtype).requires_grad_()
    values = gaussian(len(MARGINS), seed=1).to(dtype).requires_grad_()
    for kept, mask in (
        (kept_above(values, margins), margins > 0),
        (kept_inside(values, margins, within=0.25), margins.abs() < 0.25),
    ):
        assert torch.equal(kept, values * mask)
        (grad,) = torch.autograd.grad(kept.sum(), values, retain_graph=True)
        assert torch.equal(grad, mask.to(dtype))
        assert torch.autograd.grad(kept.sum(), margins, allow_unused=True) == (None,)


def test_ones_inside() -> None:
    assert torch.equal(ones_inside(MARGINS, within=0.25), (MARGINS.abs() < 0.25).float())


def test_what_is_not_a_number_stays_visible() -> None:
    broken = torch.full((19,), float("nan"))
    assert kept_above(broken, broken).isnan().all()


def test_active_counts() -> None:
    """Signed, stored and missing zeros; as many leading dimensions as there are."""
    latents = torch.tensor([[[0.0, 2.0, -1.0, 0.0]], [[0.0, 3.0, 0.0, 0.0]], [[0.0, -0.0, 1.0, 0.0]]])
    assert active_counts(latents).tolist() == [0, 2, 2, 0]
    stored = SparseRows.from_topk(torch.tensor([[0.0, 2.0], [3.0, 0.0]]), torch.tensor([[0, 1], [1, 2]]), 4)
    assert active_counts(stored).tolist() == [0, 2, 0, 0]
