"""Normalisers: invertible, with the statistics their documentation names, and safe on degenerate data."""

import pytest
import torch
from torch import Tensor
from toy import D_IN, NORMALISERS, gaussian

from sae_toolkit.saes.normalise import Normaliser, make_normaliser

each_normaliser = pytest.mark.parametrize("name", NORMALISERS)


def data(n: int = 200) -> Tensor:
    """Correlated, of unequal scale, far from 0."""
    return gaussian(n, D_IN) @ gaussian(D_IN, D_IN, seed=1) * torch.linspace(0.1, 5, D_IN) + torch.linspace(-3, 9, D_IN)


def degenerate(n: int = 37) -> Tensor:
    """One constant dimension, two equal ones, one of zeros."""
    x = data(n)
    x[:, 3], x[:, 4], x[:, 6] = 1.7, x[:, 5], 0.0
    return x


def fitted(name: str, x: Tensor) -> Normaliser:
    normaliser = make_normaliser(name, x.shape[1])
    normaliser.fit_(x)
    return normaliser


@each_normaliser
def test_denormalise_inverts_normalise(name: str) -> None:
    normaliser, x = fitted(name, data()), gaussian(50, D_IN, seed=5) * 10
    torch.testing.assert_close(normaliser.denormalise(normaliser.normalise(x)), x, atol=1e-3, rtol=1e-4)


@each_normaliser
def test_differences_are_the_linear_part(name: str) -> None:
    normaliser, x, y = (
        fitted(name, data()).double(),
        gaussian(9, D_IN, seed=1).double(),
        gaussian(9, D_IN, seed=2).double(),
    )
    expected = normaliser.normalise(x) - normaliser.normalise(y)
    torch.testing.assert_close(normaliser.normalise_difference(x - y), expected)
    expected = normaliser.denormalise(x) - normaliser.denormalise(y)
    torch.testing.assert_close(normaliser.denormalise_difference(x - y), expected)


@each_normaliser
def test_unfitted_is_the_identity(name: str) -> None:
    normaliser, x = make_normaliser(name, D_IN), gaussian(5, D_IN)
    assert not normaliser.fitted
    assert torch.equal(normaliser.normalise(x), x)
    assert torch.equal(normaliser.denormalise(x), x)


def test_none_changes_nothing() -> None:
    assert torch.equal(fitted("none", data()).normalise(data()), data())


def test_scalar_gives_mean_square_1_and_keeps_directions() -> None:
    y = fitted("scalar", data()).normalise(data())
    assert float(y.square().mean()) == pytest.approx(1, abs=1e-5)
    ratio = y / data()
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


def test_mean_scalar_gives_mean_0_and_mean_square_1_by_one_scale() -> None:
    y = fitted("mean_scalar", data()).normalise(data())
    assert y.mean(0).abs().max() < 1e-5
    assert float(y.square().mean()) == pytest.approx(1, abs=1e-5)
    ratio = y / (data() - data().mean(0))
    assert float(ratio.median()) == pytest.approx(float(ratio.mean()), rel=1e-2)


def test_per_dimension_gives_mean_0_and_variance_1_everywhere() -> None:
    y = fitted("per_dimension", data()).normalise(data())
    assert y.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(D_IN), atol=1e-5, rtol=0)


def test_whitening_gives_identity_covariance() -> None:
    y = fitted("whitening", data()).normalise(data())
    assert y.mean(0).abs().max() < 1e-4
    torch.testing.assert_close(torch.cov(y.T, correction=0), torch.eye(D_IN), atol=1e-3, rtol=0)


def test_whitening_is_symmetric() -> None:
    """ZCA: of all whitenings the one that stays closest to the data's own axes."""
    whiten = fitted("whitening", data()).whiten
    torch.testing.assert_close(whiten, whiten.T)


@each_normaliser
@pytest.mark.parametrize("value", [0.0, 3.3, -1e4, 1e-20])
@pytest.mark.parametrize("n", [16, 37])
def test_constant_data_stay_finite_and_invertible(name: str, value: float, n: int) -> None:
    x = torch.full((n, D_IN), value)
    normaliser = fitted(name, x)
    y = normaliser.normalise(x)
    assert y.abs().max() <= max(1.0001, abs(value) * (name == "none"))
    torch.testing.assert_close(normaliser.denormalise(y), x)


@each_normaliser
def test_dimensions_without_variance_do_not_drown_the_rest(name: str) -> None:
    x = degenerate()
    normaliser = fitted(name, x)
    y = normaliser.normalise(x)
    assert torch.isfinite(y).all()
    # Rounding in fp32, amplified by at most 1e4 in whitening, relative to data of size about 30.
    assert (normaliser.denormalise(y) - x).abs().max() <= (2e-2 if name == "whitening" else 1e-5)


def test_whitening_a_rank_deficient_sample_still_whitens_what_varies() -> None:
    y = fitted("whitening", degenerate(400)).normalise(degenerate(400))
    variances = torch.linalg.eigvalsh(torch.cov(y.T.double(), correction=0))
    torch.testing.assert_close(variances[3:], torch.ones(5).double(), atol=1e-2, rtol=0)  # 8 less constant, zero, twin
    assert variances[:3].abs().max() < 1e-2


def test_whitening_with_too_few_samples_says_so() -> None:
    with pytest.raises(ValueError, match="8 samples given for 8 dimensions"):
        fitted("whitening", data(8))


@each_normaliser
def test_fitting_does_not_depend_on_the_order_of_samples(name: str) -> None:
    one, other = fitted(name, data()), fitted(name, data().flip(0))
    torch.testing.assert_close(one.normalise(data()), other.normalise(data()), atol=1e-5, rtol=1e-5)
