import math

import pytest
import scipy.stats
import torch

from sae_toolkit.ground_truth import firing as f

N = 40_000
RATES = torch.tensor([0.0, 1e-4, 0.003, 0.02, 0.021, 0.3, 0.5, 0.77, 1.0])


def dense(fired, n_samples, n_features):
    mask = torch.zeros(n_samples, n_features, dtype=torch.bool)
    mask[fired.rows, fired.features] = True
    return mask


def sample_dense(firing, n_samples=N, seed=0):
    fired = firing.sample(n_samples, torch.Generator().manual_seed(seed))
    return dense(fired, n_samples, firing.n_features)


def check_marginals(mask, rates):
    found, error = mask.double().mean(0), (rates * (1 - rates) / len(mask)).double().sqrt()
    assert ((found - rates).abs() <= 4.5 * error + 1e-12).all(), (found, rates)


def test_marginals_are_exact():
    check_marginals(sample_dense(f.IndependentFiring(probabilities=RATES)), RATES)


def test_features_are_independent():
    rates = torch.tensor([0.3, 0.25, 0.2, 0.26])
    mask = sample_dense(f.IndependentFiring(probabilities=rates)).double()
    correlation = torch.corrcoef(mask.T) - torch.eye(4)
    assert correlation.abs().max() < 4.5 / math.sqrt(N)


def test_samples_are_independent_of_their_neighbours():
    mask = sample_dense(f.IndependentFiring(probabilities=torch.tensor([0.1, 0.1]))).double()
    series = mask.flatten()
    assert abs(float(torch.corrcoef(torch.stack([series[:-1], series[1:]]))[0, 1])) < 4.5 / math.sqrt(2 * N)


def test_number_of_firings_per_sample_as_in_a_dense_bernoulli_loop():
    rates = torch.linspace(0.01, 0.4, 12)
    ours = sample_dense(f.IndependentFiring(probabilities=rates)).sum(1)
    reference = (torch.rand(N, 12, generator=torch.Generator().manual_seed(1)) < rates).sum(1)
    table = torch.stack([torch.bincount(counts, minlength=13) for counts in (ours, reference)])
    assert scipy.stats.chi2_contingency(table[:, table.sum(0) >= 10].numpy()).pvalue > 1e-3


def test_cells_are_sorted_and_unique():
    fired = f.IndependentFiring(probabilities=RATES).sample(1000, torch.Generator().manual_seed(0))
    keys = fired.rows * len(RATES) + fired.features
    assert (keys.diff() > 0).all()


def test_looking_cell_by_cell_has_the_same_rates():
    draw = f.IndependentFiring(probabilities=RATES).draw(N, torch.Generator().manual_seed(0))
    rows = torch.arange(N).repeat_interleave(len(RATES))
    mask = draw.at(rows, torch.arange(len(RATES)).repeat(N)).reshape(N, -1)
    check_marginals(mask, RATES)


def test_only_the_features_asked_for_fire():
    draw = f.IndependentFiring(probabilities=RATES).draw(1000, torch.Generator().manual_seed(0))
    assert set(draw.among(torch.tensor([5, 8])).features.tolist()) == {5, 8}


def test_known_draw_answers_from_what_it_knows():
    draw = f.KnownDraw(f.Fired(torch.tensor([0, 0, 2]), torch.tensor([1, 3, 0])), n_samples=3, n_features=4)
    assert draw.among(torch.tensor([0, 3]))._asdict() == {
        "rows": pytest.approx([0, 2]),
        "features": pytest.approx([3, 0]),
    }
    asked = draw.at(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 2, 0, 3]))
    assert asked.tolist() == [True, False, True, False]


def test_known_draw_may_be_empty():
    nothing = f.KnownDraw(f.Fired(*torch.zeros(2, 0, dtype=torch.int64)), n_samples=3, n_features=4)
    assert nothing.at(torch.tensor([0]), torch.tensor([1])).tolist() == [False]


@pytest.mark.parametrize("rate", [0.0, 1e-5, 0.01, 0.9, 1.0])
def test_gaps_give_binomial_counts(rate):
    counts = [len(f.rare_positions(5000, rate, torch.Generator().manual_seed(s))) for s in range(200)]
    total, n = sum(counts), 200 * 5000
    assert abs(total - n * rate) <= 4.5 * math.sqrt(n * rate * (1 - rate))


def test_gaps_reach_the_last_trial():
    hits = [f.rare_positions(3, 0.5, torch.Generator().manual_seed(s)).tolist() for s in range(200)]
    assert {tuple(h) for h in hits} == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}


def test_nothing_dense_is_built():
    # 1e6 features x 1e4 samples would be 1e10 cells; about 100 of them fire
    firing = f.IndependentFiring(probabilities=torch.full((1_000_000,), 1e-8))
    assert 40 < len(firing.sample(10_000, torch.Generator().manual_seed(0)).rows) < 180


def test_same_generator_same_firings():
    firing = f.IndependentFiring(probabilities=RATES)
    assert torch.equal(sample_dense(firing, 500, seed=3), sample_dense(firing, 500, seed=3))
    assert not torch.equal(sample_dense(firing, 500, seed=3), sample_dense(firing, 500, seed=4))


@pytest.mark.parametrize("values", [[1.5], [-0.1, 0.5], [math.nan], []])
def test_what_is_no_probability_raises(values):
    with pytest.raises(ValueError, match="IndependentFiring"):
        f.IndependentFiring(probabilities=torch.tensor(values))


def test_describe_tells_the_expected_l0():
    described = f.IndependentFiring(probabilities=torch.tensor([0.5, 0.25])).describe()
    assert described == {"name": "IndependentFiring", "n_features": 2, "expected_l0": 0.75}
