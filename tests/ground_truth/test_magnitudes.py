import math

import pytest
import scipy.stats
import torch

from sae_toolkit.ground_truth import magnitudes as m

N = 20_000


def draw(model, feature=0, seed=0):
    return model.sample(torch.full((N,), feature), torch.Generator().manual_seed(seed)).double().numpy()


@pytest.mark.parametrize(
    ("model", "distribution"),
    [
        (m.UniformMagnitudes(low=0.5, high=2.0), scipy.stats.uniform(0.5, 1.5)),
        (m.FoldedNormalMagnitudes(mean=1.0, std=0.5), scipy.stats.foldnorm(2.0, scale=0.5)),
        (m.ExponentialMagnitudes(mean=3.0), scipy.stats.expon(scale=3.0)),
    ],
)
def test_distribution_against_scipy(model, distribution):
    assert scipy.stats.kstest(draw(model), distribution.cdf).pvalue > 1e-3


def test_constant_is_constant():
    assert set(draw(m.ConstantMagnitudes(value=2.5))) == {2.5}


def test_rectified_normal_uses_the_numbers_of_its_feature():
    model = m.RectifiedNormalMagnitudes(mean=torch.tensor([9.0, 0.5]), std=torch.tensor([0.0, 0.5]))
    assert set(draw(model, feature=0)) == {9.0}
    values = draw(model, feature=1)
    # P(N(.5, .5) <= 0) = Phi(-1) = .1587; E relu = .5 Phi(1) + .5 phi(1) = .5417
    assert abs((values == 0).mean() - 0.158655) < 5 * math.sqrt(0.1587 * 0.8413 / N)
    assert abs(values.mean() - 0.541658) < 5 * 0.5 / math.sqrt(N)


def test_same_generator_same_magnitudes():
    model = m.ExponentialMagnitudes()
    assert (draw(model, seed=1) == draw(model, seed=1)).all()
    assert not (draw(model, seed=1) == draw(model, seed=2)).any()


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    "make",
    [
        lambda: m.ConstantMagnitudes(value=0.0),
        lambda: m.ConstantMagnitudes(value=math.nan),
        lambda: m.UniformMagnitudes(low=1.0, high=1.0),
        lambda: m.UniformMagnitudes(low=-1.0, high=1.0),
        lambda: m.FoldedNormalMagnitudes(std=0.0),
        lambda: m.FoldedNormalMagnitudes(mean=math.inf),
        lambda: m.ExponentialMagnitudes(mean=-1.0),
        lambda: m.RectifiedNormalMagnitudes(mean=torch.zeros(2), std=torch.zeros(3)),
        lambda: m.RectifiedNormalMagnitudes.same_for_all(2, mean=math.nan, std=1.0),
        lambda: m.RectifiedNormalMagnitudes.same_for_all(2, mean=1.0, std=-1.0),
    ],
)
def test_impossible_settings_raise(make):
    with pytest.raises(ValueError, match="Magnitudes"):
        make()
