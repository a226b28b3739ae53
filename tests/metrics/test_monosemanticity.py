import pytest
import torch

from sae_toolkit.metrics import features_per_neuron, monosemantic_neurons, neuron_contributions, served_features


def test_contributions_are_what_is_read_times_what_is_written():
    W = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    W2 = torch.tensor([[3.0, 0.0], [4.0, 1.0]])  # columns of length 5 and 1
    assert neuron_contributions(W, W2).tolist() == [[10.0, 5.0], [0.0, 3.0]]


def test_a_tied_model_writes_what_it_reads():
    W = torch.tensor([[3.0, 4.0]])  # its row has length 5
    assert neuron_contributions(W).tolist() == [[15.0, 20.0]]


def test_models_of_a_batch_do_not_mix():
    W = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    W2 = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1))
    for i, together in enumerate(neuron_contributions(W, W2)):
        assert together.tolist() == neuron_contributions(W[i], W2[i]).tolist()


@pytest.mark.parametrize(
    ("contributions", "expected"),
    [
        ([1.0, 0.0, 0.0], True),
        ([1.0, 0.33, 0.0], True),  # 1 / 1.1089 = .902
        ([1.0, 0.34, 0.0], False),  # 1 / 1.1156 = .896
        ([0.0, 0.0, 0.0], False),
        ([1e-5, 0.0, 0.0], False),
    ],
)
def test_a_monosemantic_neuron_has_nine_tenths_in_one_feature(contributions, expected):
    assert monosemantic_neurons(torch.tensor([contributions])).tolist() == [expected]


def test_equal_contributions_are_counted():
    assert features_per_neuron(torch.tensor([[2.0, 2.0, 2.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).tolist() == [3, 1, 0]


def test_served_features_are_the_largest_of_a_neuron_that_does_something():
    contributions = torch.tensor([[1.0, 0.9, 0.0, 0.0], [0.0, 0.2, 0.7, 0.0], [0.0, 0.0, 0.0, 1e-5]])
    assert served_features(contributions).tolist() == [True, False, True, False]
