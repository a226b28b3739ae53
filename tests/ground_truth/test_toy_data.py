import pytest
import torch

from sae_toolkit.ground_truth import ToyData

N = 40_000


def sample(data, n_samples=N, seed=0):
    return data.sample(n_samples, torch.Generator().manual_seed(seed))


def close_to_rate(found, rate):
    return (found - rate).abs() <= 4.5 * (rate * (1 - rate) / N).sqrt() + 1e-6


def test_every_cell_has_its_own_rates():
    p = torch.tensor([[0.1, 0.9], [0.5, 0.0], [1.0, 0.02]])
    assert close_to_rate((sample(ToyData(probabilities=p)) != 0).float().mean(1), p).all()


def test_magnitudes_are_uniform():
    x = sample(ToyData.uniform([1.0], 2))
    assert x.min() >= 0
    assert x.max() < 1
    torch.testing.assert_close(x.mean((0, 1)), torch.full((2,), 0.5), atol=4.5 * (1 / 12 / N) ** 0.5, rtol=0)
    torch.testing.assert_close(x.square().mean((0, 1)), torch.full((2,), 1 / 3), atol=0.007, rtol=0)


def test_signed_magnitudes_reach_from_minus_one_to_one():
    x = sample(ToyData.uniform([1.0], 1, signed=True))
    assert x.min() < -0.99
    assert x.max() > 0.99
    assert abs(float(x.mean())) < 4.5 * (1 / 3 / N) ** 0.5


def test_cells_read_the_same_random_numbers():
    rare, frequent = sample(ToyData.uniform([0.1, 0.6], 3))
    fires = rare != 0
    assert torch.equal(rare[fires], frequent[fires])


def test_features_fire_independently():
    fires = (sample(ToyData.uniform([0.3], 2))[0] != 0).double()
    assert abs(float(torch.corrcoef(fires.T)[0, 1])) < 4.5 / N**0.5


def test_correlated_features_fire_together_with_magnitudes_of_their_own():
    x = sample(ToyData.uniform([0.2], 3, correlated=((0, 2),)))[0]
    assert torch.equal(x[:, 0] != 0, x[:, 2] != 0)
    assert abs(float(torch.corrcoef(x[x[:, 0] != 0][:, [0, 2]].T)[0, 1])) < 4.5 / (0.2 * N) ** 0.5


def test_exclusive_features_never_fire_together():
    p = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.1]])
    fires = sample(ToyData(probabilities=p, exclusive=((0, 1, 2),))) != 0
    assert fires.sum(2).max() == 1
    assert close_to_rate(fires.float().mean(1), p).all()


@pytest.mark.parametrize(
    ("grouping", "expected"),
    [
        ({}, [0.64, 0.16, 0.16, 0.04]),
        ({"correlated": ((0, 1),)}, [0.8, 0.0, 0.0, 0.2]),
        ({"exclusive": ((0, 1),)}, [0.6, 0.2, 0.2, 0.0]),
    ],
)
def test_mask_probabilities_by_hand(grouping, expected):
    masks = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    found = ToyData.uniform([0.2], 2, **grouping).mask_probabilities(masks)
    torch.testing.assert_close(found[0].float(), torch.tensor(expected))


def test_cells_are_repeated_in_a_row():
    data = ToyData.uniform([0.1, 0.2], 1, signed=True).repeat(2)
    assert data.signed
    assert data.probabilities[:, 0].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probabilities": torch.tensor([[1.2, 0.1]])}, r"1\.2 given"),
        ({"probabilities": torch.full((1, 2), 0.1), "correlated": ((0, 2),)}, "from 0 to 1"),
        ({"probabilities": torch.full((1, 2), 0.1), "correlated": ((0, 1),), "exclusive": ((0, 1),)}, "one group"),
        ({"probabilities": torch.tensor([[0.1, 0.2]]), "correlated": ((0, 1),)}, "one probability"),
        ({"probabilities": torch.tensor([[0.6, 0.6]]), "exclusive": ((0, 1),)}, "more than 1"),
    ],
)
def test_impossible_data_raise(values, message):
    with pytest.raises(ValueError, match=message):
        ToyData(**values)
