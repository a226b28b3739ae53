"""Crosscoders: f = ReLU(sum_s W_enc^s a_s + b_enc), a_s_hat = W_dec^s f + b_dec^s, each site written to is paid for."""

import pytest
import torch
from torch import Tensor
from toy import check_loss_and_gradients, gaussian, toy_batch, working_sae

from sae_toolkit import ReluCrosscoder, TopKCrosscoder, TrainingSignals
from sae_toolkit.saes.crosscoder import decoder_norms
from sae_toolkit.saes.normalise import SitewiseNormaliser, make_normaliser

SIGNALS = TrainingSignals(torch.zeros(16, dtype=torch.bool), torch.tensor(0.7, dtype=torch.float64))


def by_site(crosscoder: ReluCrosscoder | TopKCrosscoder, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Pre-activations as a sum over sites, and the normalised activations of each (columns 0-2 and 3-7)."""
    sites = list(crosscoder.normaliser.normalise(x).split([3, 5], dim=1))
    parts = [
        (a - b) @ W
        for a, b, W in zip(sites, crosscoder.b_dec.split([3, 5]), crosscoder.W_enc.split([3, 5]), strict=True)
    ]
    return parts[0] + parts[1] + crosscoder.b_enc, sites


def squared_error(crosscoder: ReluCrosscoder | TopKCrosscoder, sites: list[Tensor], f: Tensor) -> Tensor:
    """sum_s ||a_s - a_s_hat||^2, as a mean over all coordinates."""
    total = torch.zeros((), dtype=torch.float64)
    for a, W, b in zip(sites, crosscoder.W_dec.split([3, 5], dim=1), crosscoder.b_dec.split([3, 5]), strict=True):
        total = total + (a - f @ W - b).square().sum(1).mean()
    return total / 8


def test_the_loss_and_gradients_of_relu() -> None:
    crosscoder, x = working_sae(ReluCrosscoder, l1_coefficient=0.3).double().train(), toy_batch(40).double()
    pre, sites = by_site(crosscoder, x)
    f = pre.relu()
    first, second = crosscoder.W_dec.split([3, 5], dim=1)
    paid = (f * (first.norm(dim=1) + second.norm(dim=1))).sum(1).mean()
    expected = squared_error(crosscoder, sites, f) + 0.3 * 0.7 * paid / 8**0.5
    check_loss_and_gradients(crosscoder, x, SIGNALS, expected)


def test_the_loss_and_gradients_of_topk() -> None:
    crosscoder, x = working_sae(TopKCrosscoder).double().train(), toy_batch(40).double()
    pre, sites = by_site(crosscoder, x)
    top = pre.topk(3)
    f = torch.zeros_like(pre).scatter(-1, top.indices, top.values).relu()
    check_loss_and_gradients(crosscoder, x, SIGNALS, squared_error(crosscoder, sites, f))


def test_decoder_norms_by_hand() -> None:
    """Rows (3 4 0 | 0 0 0 0 0) and (0 0 0 | 0 0 1 0 0): lengths 5 and 0, 0 and 1."""
    crosscoder = working_sae(TopKCrosscoder, d_sae=3)
    with torch.no_grad():
        crosscoder.W_dec.zero_()
        crosscoder.W_dec[0, :2] = torch.tensor([3.0, 4.0])
        crosscoder.W_dec[1, 5] = 1.0
    assert decoder_norms(crosscoder.W_dec, (3, 5)).tolist() == [[5, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("name", ["none", "scalar", "mean_scalar", "per_dimension", "whitening"])
def test_each_site_is_normalised_as_if_it_were_alone(name: str) -> None:
    x = torch.cat([gaussian(100, 3), 50 * gaussian(100, 5, seed=1) + 7], dim=1)
    together, first, second = SitewiseNormaliser(name, (3, 5)), make_normaliser(name, 3), make_normaliser(name, 5)
    for normaliser, columns in ((together, x), (first, x[:, :3]), (second, x[:, 3:])):
        normaliser.fit_(columns)
    expected = torch.cat([first.normalise(x[:, :3]), second.normalise(x[:, 3:])], dim=1)
    torch.testing.assert_close(together.normalise(x), expected)
    torch.testing.assert_close(together.denormalise(expected), x, atol=1e-3, rtol=1e-4)
    apart = together.normalise(x[:50]) - together.normalise(x[50:])
    torch.testing.assert_close(together.normalise_difference(x[:50] - x[50:]), apart, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.denormalise_difference(apart), x[:50] - x[50:], atol=1e-3, rtol=1e-4)
    assert bool(together.fitted)


@pytest.mark.parametrize("widths", [(3, 4), (8, 0), ()])
def test_widths_that_do_not_add_up_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"site_widths=.* given with d_in=8"):
        TopKCrosscoder.Config(d_in=8, d_sae=16, k=3, site_widths=widths)
