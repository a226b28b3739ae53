"""Training of toy models, all instances at once (Elhage et al. 2022, "Toy Models of Superposition", arXiv 2209.10652).

Instance i belongs to cell i // n_inits of an experiment, and `best_of` keeps the best instance of each cell: most
single runs end in a local minimum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.ground_truth.exact_expectation import exact_loss, n_grid_inputs, quadrature_grid
from sae_toolkit.ground_truth.toy_data import ToyData, ToyDraw
from sae_toolkit.ground_truth.toy_model import ToyModels, WeightedInputs, join_models
from sae_toolkit.seeding import generator_for

NUMBERS_PER_BLOCK = 2**18
"""Instances are trained in blocks whose inputs hold about this many numbers (1 MB): larger ones leave the cache."""
EVALUATION_NODES = {1: 64, 2: 64}
"""Quadrature nodes of a final loss for 1 and 2 features, where kinks along a diagonal count most; 16 for more."""

Log = Callable[[Mapping[str, Any]], None]
InputsOfStep = Callable[[int], WeightedInputs]


@dataclass(frozen=True, kw_only=True)
class ToyTrainConfig:
    """How toy models learn: Adam on all instances."""

    n_steps: int = 3000
    """Updates."""
    learning_rate: float = 3e-3
    """Of Adam, at the first step."""
    decay: Literal["linear", "constant"] = "linear"
    """linear: the learning rate falls to 0 over all steps."""
    seed: int = 0
    """Of initialisation, training and evaluation data."""
    snapshot_steps: tuple[int, ...] = ()
    """Numbers of updates after which the models are kept, 0 (as initialised) to n_steps."""

    def __post_init__(self) -> None:
        if self.n_steps < 1 or not self.learning_rate > 0:
            raise ValueError(
                f"ToyTrainConfig: n_steps={self.n_steps} and learning_rate={self.learning_rate} given. Both must be "
                "above 0."
            )
        wrong = [step for step in self.snapshot_steps if not 0 <= step <= self.n_steps]
        if wrong:
            raise ValueError(f"ToyTrainConfig: snapshots asked at steps {wrong}, outside 0 to n_steps={self.n_steps}.")


class Snapshot(NamedTuple):
    """The models during training."""

    step: int
    """Updates so far."""
    models: ToyModels


class ToyTraining(NamedTuple):
    """Trained models, what they reached and how they got there."""

    models: ToyModels
    losses: Float64[Tensor, " instances"]
    """Expected loss after training: exact, or on a fixed draw that training never saw."""
    history: tuple[Snapshot, ...] = ()
    """In the order of steps."""

    def select(self, indices: Sequence[int]) -> "ToyTraining":
        """Some of the instances."""
        history = tuple(Snapshot(step, models.select(indices)) for step, models in self.history)
        return ToyTraining(self.models.select(indices), self.losses[list(indices)], history)


def train_toy_models(
    config: ToyModels.Config,
    data: ToyData,
    importance: Float[Tensor, "*cells n_features"],
    *,
    train: ToyTrainConfig | None = None,
    batch_size: int = 256,
    eval_samples: int = 65_536,
    start: ToyModels | None = None,
    log: Log | None = None,
) -> ToyTraining:
    """Minimises E sum_i I_i (x_i - x'_i)^2 on fresh samples in every step; all instances read the same random numbers.

    config.n_instances must be a multiple of data.n_cells: consecutive instances are the inits of one cell. `importance`
    is one row for all cells or one per cell. `start` replaces the initialisation. `log` gets the step and the mean loss
    of its batch, 100 times.
    """
    train = train or ToyTrainConfig()
    models, data, importance = per_instance(config, data, importance, start, train.seed)

    @lru_cache(maxsize=1)
    def draw(step: int) -> ToyDraw:
        return data.draw(batch_size, generator_for(train.seed, "toy training data", step))

    def inputs_of(block: slice) -> InputsOfStep:
        own = data.select(block)
        return lambda step: WeightedInputs(own.at(draw(step)).to(models.b.dtype))

    blocks = blocks_of(config, batch_size)
    trained, history = fit(models, importance, inputs_of, blocks=blocks, train=train, log=log)
    losses = evaluate_toy_models(trained, data, importance, n_samples=eval_samples, seed=train.seed)
    return ToyTraining(trained, losses, history)


def train_exactly(
    config: ToyModels.Config,
    data: ToyData,
    importance: Float[Tensor, "*cells n_features"],
    *,
    train: ToyTrainConfig | None = None,
    n_nodes: int = 8,
    start: ToyModels | None = None,
    log: Log | None = None,
) -> ToyTraining:
    """`train_toy_models` without sampling: every step minimises the expectation itself. For up to about 5 features."""
    train = train or ToyTrainConfig()
    models, data, importance = per_instance(config, data, importance, start, train.seed)
    grid = quadrature_grid(data, n_nodes=n_nodes)

    def inputs_of(block: slice) -> InputsOfStep:
        inputs = grid._replace(weights=grid.weights[block]).inputs(models.b.dtype)
        return lambda step: inputs

    blocks = blocks_of(config, len(grid.x))
    trained, history = fit(models, importance, inputs_of, blocks=blocks, train=train, log=log)
    return ToyTraining(trained, evaluate_exactly(trained, data, importance), history)


def best_of(training: ToyTraining, n_inits: int) -> ToyTraining:
    """The instance with the lowest loss of every cell, where n_inits consecutive instances are one cell."""
    if n_inits < 1 or len(training.losses) % n_inits:
        raise ValueError(
            f"best_of: n_inits={n_inits} given for {len(training.losses)} instances. Give the instances per cell."
        )
    best = training.losses.nan_to_num(nan=torch.inf).reshape(-1, n_inits).argmin(dim=1)
    return training.select((best + n_inits * torch.arange(len(best))).tolist())


def evaluate_toy_models(
    models: ToyModels,
    data: ToyData,
    importance: Float[Tensor, "*cells n_features"],
    *,
    n_samples: int = 65_536,
    seed: int = 0,
) -> Float64[Tensor, " instances"]:
    """Expected loss of every instance: exact where that is cheaper than n_samples, else on one draw for all."""
    models, data, importance = per_instance(models.config, data, importance, models, seed)
    if n_samples < 1:
        raise ValueError(f"evaluate_toy_models: n_samples={n_samples} asked, but at least 1 is needed.")
    if n_grid_inputs(data, EVALUATION_NODES.get(data.n_features, 16)) <= n_samples:
        return evaluate_exactly(models, data, importance)
    generator = generator_for(seed, "toy evaluation data")
    losses = torch.zeros(models.config.n_instances, dtype=torch.float64)
    chunk = min(n_samples, 1024)
    n_chunks = -(-n_samples // chunk)
    blocks = [(block, models.select(block), data.select(block)) for block in blocks_of(models.config, chunk)]
    with torch.no_grad():
        for _ in range(n_chunks):
            draw = data.draw(chunk, generator)
            for block, part, own in blocks:
                found = part.feature_losses(WeightedInputs(own.at(draw))) * importance[block]
                losses[block] += found.sum(dim=1).double() / n_chunks
    return losses


def evaluate_exactly(
    models: ToyModels, data: ToyData, importance: Float[Tensor, "instances n_features"]
) -> Float64[Tensor, " instances"]:
    """Expected losses by fine quadrature in float64, block by block."""
    n_nodes = EVALUATION_NODES.get(data.n_features, 16)
    with torch.no_grad():
        losses = [
            exact_loss(models.select(block).double(), data.select(block), importance[block], n_nodes=n_nodes)
            for block in blocks_of(models.config, n_grid_inputs(data, n_nodes))
        ]
    return torch.cat(losses)


def fit(
    models: ToyModels,
    importance: Float[Tensor, "instances n_features"],
    inputs_of: Callable[[slice], InputsOfStep],
    *,
    blocks: Sequence[slice],
    train: ToyTrainConfig,
    log: Log | None,
) -> tuple[ToyModels, tuple[Snapshot, ...]]:
    """Adam on the sum of all instances' losses: it is elementwise, so that no instance feels another."""
    parts = [(models.select(block), importance[block], inputs_of(block)) for block in blocks]
    optimizer = torch.optim.Adam([p for part, _, _ in parts for p in part.parameters()], lr=train.learning_rate)
    history = []
    for step in range(train.n_steps + 1):
        if step in train.snapshot_steps:
            history.append(Snapshot(step, join_models([part for part, _, _ in parts])))
        if step == train.n_steps:
            break
        if train.decay == "linear":
            optimizer.param_groups[0]["lr"] = train.learning_rate * (1 - step / train.n_steps)
        optimizer.zero_grad()
        losses = []
        for part, weights, inputs in parts:
            loss = part.summed_loss(inputs(step), weights)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        optimizer.step()
        if log is not None and step % max(train.n_steps // 100, 1) == 0:
            log({"step": step, "mean_loss": float(torch.stack(losses).sum()) / models.config.n_instances})
    return join_models([part for part, _, _ in parts]), tuple(history)


def blocks_of(config: ToyModels.Config, n_inputs: int) -> list[slice]:
    """Runs of instances that fit the cache together."""
    size = max(NUMBERS_PER_BLOCK // (n_inputs * config.n_features), 1)
    return [slice(start, min(start + size, config.n_instances)) for start in range(0, config.n_instances, size)]


def per_instance(
    config: ToyModels.Config,
    data: ToyData,
    importance: Float[Tensor, "*cells n_features"],
    start: ToyModels | None,
    seed: int,
) -> tuple[ToyModels, ToyData, Float[Tensor, "instances n_features"]]:
    """Models, data and importance with one row per instance."""
    n_inits, rest = divmod(config.n_instances, data.n_cells)
    if rest or data.n_features != config.n_features:
        raise ValueError(
            f"toy models: {config.n_instances} instances of {config.n_features} features asked, data given for "
            f"{data.n_cells} cells of {data.n_features} features. Make n_instances a multiple of the cells."
        )
    rows = importance.reshape(-1, config.n_features)
    if len(rows) not in (1, data.n_cells):
        raise ValueError(
            f"toy models: importance of shape {tuple(importance.shape)} given for {data.n_cells} cells of "
            f"{config.n_features} features. Give one row, or one per cell."
        )
    if start is not None and replace(start.config, init_scale=config.init_scale) != config:
        raise ValueError(f"toy models: {config} asked, but start given as {start.config}. Make them agree.")
    models = ToyModels(config, seed=seed) if start is None else start
    expanded = rows.expand(data.n_cells, -1).repeat_interleave(n_inits, dim=0)
    return models, data.repeat(n_inits), expanded.to(models.b.dtype)
