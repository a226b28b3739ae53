from dataclasses import replace

import pytest
import torch

from sae_toolkit.ground_truth import ToyModels
from sae_toolkit.ground_truth.toy_model import WeightedInputs, join_models, rotate_hidden

KINDS = ["linear", "relu_output", "relu_hidden", "absolute_value"]


def random_models(kind, n_instances=3, seed=0):
    config = ToyModels.Config(n_features=4, n_hidden=2, n_instances=n_instances, kind=kind)
    models = ToyModels(config, seed=seed)
    with torch.no_grad():
        models.b.copy_(torch.randn(models.b.shape, generator=torch.Generator().manual_seed(1)))
    return models


def some_inputs(n_instances=3, n_inputs=5):
    return torch.rand(n_instances, n_inputs, 4, generator=torch.Generator().manual_seed(2)) - 0.3


def one_by_one(models, x):
    """The equations of the class, one input of one instance at a time."""
    kind, outputs = models.config.kind, torch.zeros_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            W, b = models.W[i], models.b[i]
            if kind == "linear":
                outputs[i, j] = W.T @ (W @ x[i, j]) + b
            elif kind == "relu_output":
                outputs[i, j] = torch.relu(W.T @ (W @ x[i, j]) + b)
            elif kind == "relu_hidden":
                outputs[i, j] = torch.relu(W.T @ torch.relu(W @ x[i, j]) + b)
            else:
                outputs[i, j] = torch.relu(models.W2[i] @ torch.relu(W @ x[i, j]) + b)
    return outputs


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_the_equation(kind):
    models, x = random_models(kind), some_inputs()
    torch.testing.assert_close(models(x), one_by_one(models, x))


def test_forward_by_hand():
    models = ToyModels.of_weights("relu_output", torch.tensor([[[1.0, -1.0]]]), torch.tensor([[0.0, 0.25]]))
    x = torch.tensor([[[0.5, 0.0], [0.0, 1.0], [1.0, 0.5]]])
    # h = x1 - x2 = .5, -1, .5; outputs ReLU(h), ReLU(-h + 1/4)
    torch.testing.assert_close(models(x)[0], torch.tensor([[0.5, 0.0], [0.0, 1.25], [0.5, 0.0]]))
    torch.testing.assert_close(models.hidden(x)[0, :, 0], torch.tensor([0.5, -1.0, 0.5]))


def test_four_neurons_compute_the_absolute_value_of_two_features():
    W = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]])
    models = ToyModels.of_weights("absolute_value", W, torch.zeros(1, 2), W.abs().mT)
    x = torch.tensor([[[0.5, -0.25], [-1.0, 0.0]]])
    torch.testing.assert_close(models(x), x.abs())
    torch.testing.assert_close(models.target(x), x.abs())


@pytest.mark.parametrize("kind", KINDS)
def test_memory_layout_of_the_inputs_does_not_matter(kind):
    models, x = random_models(kind), some_inputs()
    torch.testing.assert_close(models(x.mT.contiguous().mT), models(x))


def test_feature_losses_are_weighted_means():
    models, x = random_models("relu_output"), some_inputs(n_inputs=2)
    weights = torch.tensor([[0.25, 0.75]]).repeat(3, 1)
    errors = (models(x) - x).square()
    expected = 0.25 * errors[:, 0] + 0.75 * errors[:, 1]
    torch.testing.assert_close(models.feature_losses(WeightedInputs(x, weights)), expected)
    torch.testing.assert_close(models.feature_losses(WeightedInputs(x)), (errors[:, 0] + errors[:, 1]) / 2)


@pytest.mark.parametrize("weights", [None, torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0]]).repeat(3, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_summed_loss_and_gradient_are_those_of_the_feature_losses(kind, weights):
    models, inputs = random_models(kind), WeightedInputs(some_inputs(), weights)
    importance = torch.tensor([[1.0, 0.5, 0.0, 2.0], [0.3, 0.3, 0.3, 0.3], [1.0, 1.0, 1.0, 1.0]])
    plain, fast = (models.feature_losses(inputs) * importance).sum(), models.summed_loss(inputs, importance)
    torch.testing.assert_close(fast, plain)
    parameters = list(models.parameters())
    for expected, found in zip(
        torch.autograd.grad(plain, parameters), torch.autograd.grad(fast, parameters), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_selected_instances_compute_the_same(kind):
    models, x = random_models(kind), some_inputs()
    chosen = models.select([2, 0])
    assert chosen.config == replace(models.config, n_instances=2)
    torch.testing.assert_close(chosen(x[[2, 0]]), models(x)[[2, 0]])


def test_selected_instances_are_copies():
    models = random_models("linear")
    chosen = models.select(torch.tensor([1]))
    with torch.no_grad():
        chosen.W.zero_()
    assert models.W.abs().min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_joining_undoes_splitting(kind):
    models = random_models(kind)
    joined = join_models([models.select([0]), models.select([1, 2])])
    assert joined.config == models.config
    for name, values in models.state_dict().items():
        assert torch.equal(joined.state_dict()[name], values)


@pytest.mark.parametrize("kind", KINDS)
def test_an_instance_starts_alike_in_any_batch(kind):
    many, few = random_models(kind, n_instances=5), random_models(kind, n_instances=2)
    assert torch.equal(many.W[:2], few.W)
    assert not torch.equal(many.W[0], many.W[1])


def test_initial_weights_have_the_stated_spread():
    config = ToyModels.Config(n_features=30, n_hidden=20, n_instances=20, init_scale=0.5)
    assert float(ToyModels(config, seed=0).W.detach().std()) == pytest.approx(0.5 * (2 / 50) ** 0.5, rel=0.05)


def rotation():
    angle = torch.tensor(0.7)
    return torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


@pytest.mark.parametrize("kind", ["linear", "relu_output"])
def test_rotating_a_linear_bottleneck_changes_nothing(kind):
    models, x = random_models(kind), some_inputs()
    rotated = ToyModels.of_weights(kind, rotation() @ models.W, models.b)
    torch.testing.assert_close(rotated(x), models(x), atol=1e-5, rtol=0)


def test_rotating_hidden_neurons_changes_the_outputs():
    models, x = random_models("relu_hidden"), some_inputs()
    rotated = ToyModels.of_weights("relu_hidden", rotation() @ models.W, models.b)
    assert (rotated(x) - models(x)).abs().max() > 0.05


@pytest.mark.usefixtures("as_users_call")
def test_impossible_sizes_raise():
    with pytest.raises(ValueError, match="n_hidden=0"):
        ToyModels.Config(n_features=3, n_hidden=0)
    with pytest.raises(ValueError, match="init_scale=0"):
        ToyModels.Config(n_features=3, n_hidden=1, init_scale=0.0)


def test_second_weights_belong_to_one_kind():
    W, b = torch.zeros(1, 2, 3), torch.zeros(1, 3)
    with pytest.raises(ValueError, match="no W2 given"):
        ToyModels.of_weights("absolute_value", W, b)
    with pytest.raises(ValueError, match="a W2 given"):
        ToyModels.of_weights("linear", W, b, W.mT)


QUARTER_TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])


@pytest.mark.parametrize("kind", ["linear", "relu_output"])
def test_a_linear_bottleneck_does_not_feel_a_rotation(kind):
    models, x = random_models(kind), some_inputs()
    assert torch.allclose(rotate_hidden(models, QUARTER_TURN)(x), models(x), atol=1e-5)


@pytest.mark.parametrize("kind", ["relu_hidden", "absolute_value"])
def test_a_hidden_relu_feels_a_rotation(kind):
    models, x = random_models(kind), some_inputs()
    assert float((rotate_hidden(models, QUARTER_TURN)(x) - models(x)).detach().abs().max()) > 0.1


def test_both_weights_are_rotated():
    models = random_models("absolute_value")
    rotated = rotate_hidden(models, QUARTER_TURN)
    assert torch.allclose(rotated.W[:, 0], -models.W[:, 1])
    assert torch.allclose(rotated.W2 @ rotated.W, models.W2 @ models.W, atol=1e-6)
