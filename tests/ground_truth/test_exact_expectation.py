import numpy as np
import pytest
import torch

from sae_toolkit.ground_truth import ToyData, ToyModels, exact_loss
from sae_toolkit.ground_truth.exact_expectation import quadrature_grid, unit_nodes

ONES = torch.ones(2)


def expectation(data, function, n_nodes=3):
    grid = quadrature_grid(data, n_nodes=n_nodes)
    return float(grid.weights[0] @ function(grid.x.T))


def test_nodes_are_those_of_numpy():
    nodes, weights = np.polynomial.legendre.leggauss(9)
    found_nodes, found_weights = unit_nodes(9)
    np.testing.assert_allclose(found_nodes.numpy(), (nodes + 1) / 2, atol=1e-12)
    np.testing.assert_allclose(found_weights.numpy(), weights / 2, atol=1e-12)


def test_moments_are_exact():
    data = ToyData(probabilities=torch.tensor([[0.25, 0.5]]))
    assert expectation(data, lambda x: torch.ones_like(x[0])) == pytest.approx(1, abs=1e-12)
    assert expectation(data, lambda x: x[0]) == pytest.approx(0.25 / 2)
    assert expectation(data, lambda x: x[1] ** 4) == pytest.approx(0.5 / 5)
    assert expectation(data, lambda x: x[0] ** 2 * x[1]) == pytest.approx(0.25 / 3 * 0.5 / 2)


def test_groups_are_respected():
    p = 0.25
    assert expectation(ToyData.uniform([p], 2, correlated=((0, 1),)), lambda x: x[0] * x[1]) == pytest.approx(p / 4)
    assert expectation(ToyData.uniform([p], 2, exclusive=((0, 1),)), lambda x: x[0] * x[1]) == 0
    assert expectation(ToyData.uniform([p], 2, exclusive=((0, 1),)), lambda x: x[0]) == pytest.approx(p / 2)


def test_absolute_values_of_signed_features_are_exact():
    data = ToyData.uniform([0.5], 1, signed=True)
    assert expectation(data, lambda x: x[0]) == pytest.approx(0, abs=1e-12)
    assert expectation(data, lambda x: x[0].abs()) == pytest.approx(0.25)


def test_inputs_that_never_occur_are_left_out():
    assert len(quadrature_grid(ToyData.uniform([1.0], 2), n_nodes=3).x) == 9
    assert len(quadrature_grid(ToyData.uniform([1.0, 0.5], 2), n_nodes=3).x) == 16


@pytest.mark.parametrize("p", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("r", [0.1, 1.0, 3.0])
def test_antipodal_loss_is_the_closed_form(p, r):
    models = ToyModels.of_weights("relu_output", torch.tensor([[[1.0, -1.0]]]), torch.zeros(1, 2))
    found = exact_loss(models, ToyData.uniform([p], 2), torch.tensor([1.0, r]), n_nodes=40)
    assert float(found.detach()) == pytest.approx(p**2 * (1 + r) / 6, rel=2e-3)


@pytest.mark.parametrize("kind", ["linear", "relu_output"])
def test_ignoring_a_feature_costs_its_variance(kind):
    p, r = 0.3, 0.7
    models = ToyModels.of_weights(kind, torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0.0, p / 2]]))
    found = exact_loss(models, ToyData.uniform([p], 2), torch.tensor([1.0, r]))
    assert float(found.detach()) == pytest.approx(r * (p / 3 - p**2 / 4), rel=1e-6)


@pytest.mark.parametrize("kind", ["linear", "relu_output", "relu_hidden", "absolute_value"])
def test_agrees_with_monte_carlo(kind):
    n_samples, signed = 400_000, kind == "absolute_value"
    models = ToyModels(ToyModels.Config(n_features=3, n_hidden=2, kind=kind, n_instances=2), seed=0)
    data = ToyData(probabilities=torch.tensor([[0.1, 0.3, 0.7], [1.0, 0.8, 0.2]]), signed=signed)
    importance = torch.tensor([[1.0, 0.5, 0.2], [0.1, 1.0, 2.0]])
    x = data.sample(n_samples, torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = ((models(x) - models.target(x)).square() * importance[:, None]).sum(2).double()
    error = losses.std(dim=1) / n_samples**0.5
    exact = exact_loss(models, data, importance)
    assert ((exact - losses.mean(1)).abs() < 4.5 * error + 3e-4 * exact).all()


def test_more_nodes_converge():
    models = ToyModels(ToyModels.Config(n_features=3, n_hidden=2, n_instances=8), seed=0).double()
    data, ones = ToyData.uniform([0.7], 3), torch.ones(3)
    fine = exact_loss(models, data, ones, n_nodes=40)
    coarse, medium = (exact_loss(models, data, ones, n_nodes=n) for n in (8, 16))
    assert ((coarse / fine - 1).abs() < 1e-3).all()
    assert ((medium / fine - 1).abs() < 2e-4).all()


def test_gradient_is_that_of_finite_differences():
    data, importance = ToyData.uniform([0.3], 2), torch.tensor([1.0, 0.5])

    def loss(W, b):
        return exact_loss(ToyModels.of_weights("linear", W, b), data, importance)

    models = ToyModels.of_weights("linear", torch.tensor([[[0.9, -0.4]]]).double(), torch.tensor([[0.1, 0.2]]).double())
    exact_loss(models, data, importance).sum().backward()
    step = 1e-6
    for index in range(2):
        shift = torch.zeros(1, 1, 2, dtype=torch.float64)
        shift[0, 0, index] = step
        with torch.no_grad():
            difference = loss(models.W + shift, models.b) - loss(models.W - shift, models.b)
        assert float(models.W.grad[0, 0, index]) == pytest.approx(float(difference) / (2 * step), rel=1e-6)


def test_consecutive_instances_belong_to_one_cell():
    models = ToyModels(ToyModels.Config(n_features=2, n_hidden=1, n_instances=4), seed=0)
    data = ToyData.uniform([0.1, 0.9], 2)
    alone = [exact_loss(models.select([i]), data.select(slice(i // 2, i // 2 + 1)), ONES) for i in range(4)]
    torch.testing.assert_close(exact_loss(models, data, ONES), torch.cat(alone))


@pytest.mark.parametrize("n_nodes", [0, 60])
def test_grids_out_of_reach_raise(n_nodes):
    with pytest.raises(ValueError, match=f"n_nodes={n_nodes} asked for 3 features"):
        quadrature_grid(ToyData.uniform([0.1], 3), n_nodes=n_nodes)
