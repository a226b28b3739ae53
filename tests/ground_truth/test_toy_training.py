import math
from dataclasses import replace

import pytest
import torch

from sae_toolkit.ground_truth import (
    ToyData,
    ToyModels,
    ToyTrainConfig,
    ToyTraining,
    best_of,
    evaluate_toy_models,
    linear_model_loss,
    toy_training,
    train_exactly,
    train_toy_models,
)
from sae_toolkit.seeding import generator_for

KINDS = ["linear", "relu_output", "relu_hidden", "absolute_value"]
SHORT = ToyTrainConfig(n_steps=60, learning_rate=1e-2)


def small(kind="relu_output", n_instances=6):
    config = ToyModels.Config(n_features=4, n_hidden=2, n_instances=n_instances, kind=kind)
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.1, 0.7], [0.3, 0.3, 0.3, 0.3]])
    importance = torch.tensor([[1.0, 0.8, 0.6, 0.4], [1.0, 1.0, 1.0, 1.0], [0.2, 0.4, 0.6, 2.0]])
    return config, ToyData(probabilities=p, signed=kind == "absolute_value"), importance


def train_small(kind="relu_output", train=SHORT, **options):
    return train_toy_models(*small(kind), train=train, batch_size=32, eval_samples=2048, **options)


def weights_of(models):
    return torch.cat([values.detach().flatten() for values in models.parameters()])


def cosines(W):
    directions = W / W.norm(dim=-2, keepdim=True)
    return directions.mT @ directions


def dimensionalities(W):
    """D_i = ||W_i||^2 / sum_j (hat W_i . W_j)^2."""
    directions = W / W.norm(dim=-2, keepdim=True)
    return W.square().sum(-2) / (directions.mT @ W).square().sum(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_instance_trains_as_if_it_were_alone(kind):
    config, data, importance = small(kind)
    together = train_small(kind)
    start = ToyModels(config, seed=0)
    for index in (0, 3, 5):
        cell = slice(index // 2, index // 2 + 1)
        alone = train_toy_models(
            replace(config, n_instances=1),
            data.select(cell),
            importance[cell],
            train=SHORT,
            batch_size=32,
            eval_samples=2048,
            start=start.select([index]),
        )
        torch.testing.assert_close(alone.models.W[0], together.models.W[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.models.b[0], together.models.b[index], atol=1e-5, rtol=0)
        assert float(alone.losses[0]) == pytest.approx(float(together.losses[index]), rel=1e-4)


def test_training_is_a_plain_loop_of_adam():
    config, data, importance = small()
    start = ToyModels(config, seed=0)
    index, steps = 2, 20
    W = start.W[index].detach().clone().requires_grad_()
    b = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=1e-2)
    for step in range(steps):
        x = data.sample(32, generator_for(0, "toy training data", step))[1]
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        outputs = torch.stack([torch.relu(W.T @ (W @ row) + b) for row in x])
        (importance[1] * (outputs - x) ** 2).sum(1).mean().backward()
        optimizer.step()
    found = train_small(train=replace(SHORT, n_steps=steps)).models
    torch.testing.assert_close(found.W[index].detach(), W.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.b[index].detach(), b.detach(), atol=1e-5, rtol=0)


def test_blocks_do_not_matter(monkeypatch):
    together = train_small()
    monkeypatch.setattr(toy_training, "NUMBERS_PER_BLOCK", 300)
    torch.testing.assert_close(weights_of(train_small().models), weights_of(together.models), atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_bits():
    first, second = train_small(), train_small()
    assert torch.equal(weights_of(first.models), weights_of(second.models))
    assert torch.equal(first.losses, second.losses)


@pytest.mark.parametrize("change", [{"seed": 1}, {"decay": "constant"}, {"learning_rate": 2e-2}, {"n_steps": 61}])
def test_every_choice_matters(change):
    changed = train_small(train=replace(SHORT, **change))
    assert not torch.equal(weights_of(changed.models), weights_of(train_small().models))


def test_log_and_snapshots_change_nothing():
    records = []
    watched = train_small(train=replace(SHORT, snapshot_steps=(0, 5, 60)), log=records.append)
    assert torch.equal(weights_of(watched.models), weights_of(train_small().models))
    assert [record["step"] for record in records] == list(range(60))
    assert records[-1]["mean_loss"] < records[0]["mean_loss"]


def test_snapshots_reach_from_start_to_end():
    config, _, _ = small()
    training = train_small(train=replace(SHORT, snapshot_steps=(0, 30, 60)))
    assert [snapshot.step for snapshot in training.history] == [0, 30, 60]
    first, middle, last = (weights_of(snapshot.models) for snapshot in training.history)
    assert torch.equal(first, weights_of(ToyModels(config, seed=0)))
    assert torch.equal(last, weights_of(training.models))
    assert not torch.equal(middle, last)


def test_best_of_keeps_the_lowest_loss_of_every_cell():
    config, _, _ = small()
    losses = torch.tensor([0.3, 0.1, math.nan, 0.5, 0.2, 0.4], dtype=torch.float64)
    models = ToyModels(config, seed=0)
    best = best_of(ToyTraining(models, losses), 2)
    assert best.losses.tolist() == [0.1, 0.5, 0.2]
    assert torch.equal(best.models.W, models.W[[1, 3, 4]])


def test_best_of_takes_the_history_along():
    training = train_small(train=replace(SHORT, snapshot_steps=(60,)))
    best = best_of(training, 2)
    assert torch.equal(weights_of(best.history[0].models), weights_of(best.models))


@pytest.mark.parametrize("n_inits", [0, 4])
def test_best_of_needs_whole_cells(n_inits):
    training = ToyTraining(ToyModels(small()[0], seed=0), torch.zeros(6, dtype=torch.float64))
    with pytest.raises(ValueError, match=f"n_inits={n_inits} given for 6"):
        best_of(training, n_inits)


def test_sampled_and_exact_evaluation_agree():
    models = ToyModels(ToyModels.Config(n_features=3, n_hidden=2, n_instances=2), seed=0)
    data, importance = ToyData.uniform([0.3, 0.8], 3), torch.tensor([1.0, 0.5, 0.2])
    exact = evaluate_toy_models(models, data, importance, n_samples=5000)  # 17^3 = 4913 inputs are cheaper
    draws = [evaluate_toy_models(models, data, importance, n_samples=4096, seed=seed) for seed in range(30)]
    samples = torch.stack(draws)
    assert ((samples.mean(0) - exact).abs() < 4.5 * samples.std(0) / 30**0.5).all()
    assert samples.std(0).min() > 0


def test_exact_and_sampled_training_reach_the_same_loss():
    config = ToyModels.Config(n_features=2, n_hidden=1, n_instances=8)
    data, importance = ToyData.uniform([0.1], 2), torch.ones(2)
    train = ToyTrainConfig(n_steps=800, learning_rate=1e-2)
    exact = best_of(train_exactly(config, data, importance, train=train), 8).losses
    sampled = best_of(train_toy_models(config, data, importance, train=train, batch_size=512), 8).losses
    assert float(sampled) == pytest.approx(float(exact), rel=0.01)
    assert float(exact) < 0.1**2 / 3 * 1.01  # the antipodal solution before W and b adapt


def test_linear_model_keeps_the_most_important_features():
    importance, p = 0.7 ** torch.arange(20.0), torch.tensor([1.0, 0.1])
    config = ToyModels.Config(n_features=20, n_hidden=5, n_instances=2, kind="linear")
    train = ToyTrainConfig(n_steps=1500, learning_rate=1e-2)
    data = ToyData.uniform(p.tolist(), 20)
    training = train_toy_models(config, data, importance, train=train, eval_samples=300_000)
    W = training.models.W.detach()
    torch.testing.assert_close(training.losses, linear_model_loss(importance, p, 5), rtol=0.03, atol=0)
    torch.testing.assert_close(5 / W.square().sum((1, 2)), torch.ones(2), atol=0.01, rtol=0)
    assert ((W.norm(dim=1) > 0.5) == (torch.arange(20) < 5)).all()


def test_five_sparse_features_make_a_pentagon():
    config = ToyModels.Config(n_features=5, n_hidden=2, n_instances=8)
    train = ToyTrainConfig(n_steps=2500, learning_rate=1e-2)
    best = best_of(train_toy_models(config, ToyData.uniform([0.02], 5), 0.9 ** torch.arange(5.0), train=train), 8)
    W = best.models.W[0].detach()
    angles = torch.rad2deg(torch.atan2(W[1], W[0])).sort().values
    gaps = torch.diff(torch.cat([angles, angles[:1] + 360]))
    assert ((gaps - 72).abs() < 10).all()
    assert ((W.norm(dim=0) - 1.16).abs() < 0.03).all()


@pytest.mark.parametrize(("p", "expected"), [(0.6, [2 / 3, 2 / 3, 2 / 3]), (0.3, [0.5, 0.5, 1.0])])
def test_three_features_in_two_dimensions(p, expected):
    config = ToyModels.Config(n_features=3, n_hidden=2, n_instances=16)
    train = ToyTrainConfig(n_steps=1000, learning_rate=3e-2)
    best = best_of(train_exactly(config, ToyData.uniform([p], 3), torch.ones(3), train=train, n_nodes=6), 16)
    found = dimensionalities(best.models.W[0].detach()).sort().values
    torch.testing.assert_close(found, torch.tensor(expected), atol=0.03, rtol=0)


def test_anticorrelated_pairs_become_antipodal_and_correlated_ones_orthogonal():
    config = ToyModels.Config(n_features=4, n_hidden=2, n_instances=20)
    train, pairs = ToyTrainConfig(n_steps=1500, learning_rate=1e-2), ((0, 1), (2, 3))
    for grouping, data in {
        "exclusive": ToyData.uniform([0.1], 4, exclusive=pairs),
        "correlated": ToyData.uniform([0.05], 4, correlated=pairs),
    }.items():
        best = best_of(train_toy_models(config, data, torch.ones(4), train=train), 20)
        found = cosines(best.models.W[0].detach())
        expected = -1.0 if grouping == "exclusive" else 0.0
        assert [float(found[pair]) for pair in pairs] == pytest.approx([expected] * 2, abs=0.1)


def test_six_neurons_compute_three_absolute_values():
    p = 0.5
    config = ToyModels.Config(n_features=3, n_hidden=6, n_instances=8, kind="absolute_value")
    train = ToyTrainConfig(n_steps=1500, learning_rate=1e-2)
    best = best_of(train_toy_models(config, ToyData.uniform([p], 3, signed=True), torch.ones(3), train=train), 8)
    W, W2 = best.models.W[0].detach(), best.models.W2[0].detach()
    shares = (W.abs() * W2.norm(dim=0)[:, None]).square()
    assert ((shares.max(1).values / shares.sum(1)) > 0.9).all()
    assert float(best.losses) < 1e-3 * 3 * (p / 3 - p**2 / 4)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": small(n_instances=4)[0]}, "4 instances .* 3 cells"),
        ({"config": ToyModels.Config(n_features=5, n_hidden=2, n_instances=3)}, "5 features asked"),
        ({"importance": torch.ones(2, 4)}, r"shape \(2, 4\)"),
        ({"start": ToyModels(small(n_instances=3)[0], seed=0)}, "start given as"),
    ],
)
def test_parts_that_disagree_raise(changes, message):
    config, data, importance = small()
    arguments = {"config": config, "data": data, "importance": importance} | changes
    with pytest.raises(ValueError, match=message):
        train_toy_models(**arguments, train=SHORT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_steps": 0}, "n_steps=0"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0"),
        ({"n_steps": 10, "snapshot_steps": (5, 11)}, r"\[11\]"),
    ],
)
def test_impossible_training_raises(values, message):
    with pytest.raises(ValueError, match=message):
        ToyTrainConfig(**values)
