import pytest
import torch

from sae_toolkit.ground_truth import probabilities as p


def test_uniform_shares_the_expected_l0():
    assert torch.allclose(p.uniform_probabilities(256, expected_l0=6.0), torch.full((256,), 6 / 256))


def test_zipf_without_clamp_by_hand():
    # weights 1, 1/2, 1/4 at exponent 1 and ranks 1, 2, 4: sum over ranks 1..4 = 25/12, so that c = 0.12 for L0 = 0.25
    found = p.zipf_probabilities(4, exponent=1.0, expected_l0=0.25)
    assert torch.allclose(found, torch.tensor([0.12, 0.06, 0.04, 0.03]))


def test_zipf_keeps_the_expected_l0_under_the_clamp():
    # c = 0.96 for L0 = 2 gives (.96, .48, .32, .24); clamped at 0.5 the others share 1.5 as 1/2 : 1/3 : 1/4,
    # which puts rank 2 at 9/13 > 0.5; the last two then share 1.0 as 4:3, rank 3 at 4/7 > 0.5; all end at 0.5
    assert torch.allclose(p.zipf_probabilities(4, exponent=1.0, expected_l0=2.0, maximum=0.5), torch.full((4,), 0.5))
    found = p.zipf_probabilities(256, exponent=0.7, expected_l0=8.0, maximum=0.5)
    assert float(found.double().sum()) == pytest.approx(8, abs=1e-5)
    assert float(found[0]) == 0.5
    assert float(found[200] / found[100]) == pytest.approx((101 / 201) ** 0.7, rel=1e-5)


def test_synth_sae_bench_rates_by_hand():
    # i^-1/2 for i = 1..4 is 1, .7071, .5774, .5; affine from [.5, 1] to [.1, .3]
    found = p.synth_sae_bench_probabilities(4, minimum=0.1, maximum=0.3)
    assert torch.allclose(found, torch.tensor([0.3, 0.182843, 0.130940, 0.1]), atol=1e-5)


def test_given_are_kept():
    assert torch.equal(p.given_probabilities([0.25, 0.0, 1.0]), torch.tensor([0.25, 0.0, 1.0]))


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [-0.1], [float("nan")]])
def test_what_is_no_probability_raises(values):
    with pytest.raises(ValueError, match="given_probabilities"):
        p.given_probabilities(values)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_features": 0, "expected_l0": 1.0},
        {"n_features": 4, "expected_l0": 0.0},
        {"n_features": 4, "expected_l0": 2.1, "maximum": 0.5},
        {"n_features": 4, "expected_l0": 1.0, "maximum": 1.5},
    ],
)
def test_impossible_zipf_raises(arguments):
    with pytest.raises(ValueError, match="zipf_probabilities"):
        p.zipf_probabilities(exponent=1.0, **arguments)


@pytest.mark.parametrize("wrong", [{"minimum": 0.5, "maximum": 0.4}, {"exponent": 0.0}, {"maximum": 1.5}])
def test_impossible_bench_rates_raise(wrong):
    with pytest.raises(ValueError, match="synth_sae_bench_probabilities"):
        p.synth_sae_bench_probabilities(8, **wrong)
