import numpy as np
import pytest
import torch
from scipy import stats

from sae_toolkit.metrics.false_discovery import benjamini_hochberg, latents_with_effect


def test_by_hand():
    # sorted .01 .02 .03 .5 -> p n / i = .04 .04 .04 .5
    q = benjamini_hochberg(torch.tensor([0.03, 0.5, 0.01, 0.02], dtype=torch.float64))
    assert q.tolist() == pytest.approx([0.04, 0.5, 0.04, 0.04])


@pytest.mark.parametrize("n", [1, 2, 17, 5000])
def test_agrees_with_scipy(n):
    p = np.random.default_rng(n).uniform(size=n) ** 2
    p[: n // 4] = p[0]  # ties
    q = benjamini_hochberg(torch.from_numpy(p)).numpy()
    assert np.abs(q - stats.false_discovery_control(p)).max() < 1e-12


def test_what_was_not_tested_does_not_count():
    q = benjamini_hochberg(torch.tensor([0.01, float("nan"), 0.02]))
    assert q[[0, 2]].tolist() == pytest.approx([0.02, 0.02])
    assert q[1].isnan()
    assert benjamini_hochberg(torch.zeros(0)).shape == (0,)


def test_p_values_only():
    with pytest.raises(ValueError, match="1 values outside"):
        benjamini_hochberg(torch.tensor([0.5, 1.2]))


def test_tests_are_those_of_scipy():
    x = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)).double()
    expected = stats.ttest_1samp(x.numpy(), 0.1)
    found = latents_with_effect(x, null=0.1)
    np.testing.assert_allclose(found.p_values.numpy(), expected.pvalue, rtol=1e-9)
    assert found.n_tested == 40


def test_false_discoveries_among_thousands_stay_below_the_level():
    # 200 of 5000 latents are shifted by 3 standard errors times 2.7; the share of false calls is 5 % on average
    g = torch.Generator().manual_seed(0)
    shares, hits = [], []
    for _ in range(20):
        x = torch.randn(30, 5000, generator=g)
        x[:, :200] += 1.5
        found = latents_with_effect(x).found
        shares.append(float(found[200:].sum() / found.sum().clamp_min(1)))
        hits.append(float(found[:200].double().mean()))
    assert 0.02 < np.mean(shares) < 0.07
    assert np.mean(hits) > 0.95


def test_latents_that_never_change():
    x = torch.zeros(5, 3)
    x[:, 1] = 2.0
    x[:, 2] = torch.arange(5.0)
    found = latents_with_effect(x)
    assert found.p_values[0].isnan()
    assert found.p_values[1] == 0
    assert found.found.tolist() == [False, True, found.q_values[2] <= 0.05]
    assert found.n_tested == 2


def test_one_replicate_is_refused():
    with pytest.raises(ValueError, match="needs 2"):
        latents_with_effect(torch.zeros(1, 4))
