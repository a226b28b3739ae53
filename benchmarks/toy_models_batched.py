"""A phase diagram trained as one batch beside the same models trained one by one, in turns, in one run.

    python benchmarks/toy_models_batched.py --rounds 3

81 cells x 12 inits of n = 2, m = 1 (and, with --features 5 --hidden 2, larger ones). One by one is the loop that one
would write first: a fresh batch, forward, backward and torch's Adam per model and step, nothing evaluated or logged.
Both read samples of the same distribution; the batched trainer's final evaluation counts against it. Reported: seconds
per model and step, and the ratio of the two in every round.
"""

import argparse
import statistics
import time

import torch

from sae_toolkit.ground_truth import ToyData, ToyModels, ToyTrainConfig, train_exactly, train_toy_models


def phase_diagram(n_features: int) -> tuple[ToyData, torch.Tensor]:
    """9 x 9 cells: p from 0.01 to 1, importance of the last feature from 0.1 to 10, both logarithmic."""
    p, r = (
        grid.flatten() for grid in torch.meshgrid(torch.logspace(-2, 0, 9), torch.logspace(-1, 1, 9), indexing="ij")
    )
    importance = torch.ones(81, n_features)
    importance[:, -1] = r
    return ToyData(probabilities=p[:, None].repeat(1, n_features)), importance


def one_by_one(options: argparse.Namespace, data: ToyData, importance: torch.Tensor, n_steps: int) -> int:
    """Trains every model of the diagram alone; returns how many."""
    generator = torch.Generator().manual_seed(0)
    n_models = 0
    for cell in range(data.n_cells):
        for _ in range(options.inits):
            W = torch.randn(options.hidden, options.features, generator=generator, requires_grad=True)
            b = torch.zeros(options.features, requires_grad=True)
            optimizer = torch.optim.Adam([W, b], lr=1e-2)
            p, weights = data.probabilities[cell], importance[cell]
            for _ in range(n_steps):
                coins = torch.rand(options.batch, options.features, generator=generator)
                x = torch.rand(options.batch, options.features, generator=generator) * (coins < p)
                optimizer.zero_grad()
                outputs = torch.relu(x @ W.T @ W + b)
                ((outputs - x).square().mean(0) * weights).sum().backward()
                optimizer.step()
            n_models += 1
    return n_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--features", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=1)
    parser.add_argument("--inits", type=int, default=12)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1000, help="of the batched trainers")
    parser.add_argument("--alone-steps", type=int, default=50, help="of each model trained alone")
    options = parser.parse_args()
    data, importance = phase_diagram(options.features)
    n_models = data.n_cells * options.inits
    config = ToyModels.Config(n_features=options.features, n_hidden=options.hidden, n_instances=n_models)
    train = ToyTrainConfig(n_steps=options.steps, learning_rate=1e-2)
    ratios: dict[str, list[float]] = {"sampled": [], "exact": []}
    for round_index in range(options.rounds):
        start = time.perf_counter()
        trained = one_by_one(options, data, importance, options.alone_steps)
        alone = (time.perf_counter() - start) / (trained * options.alone_steps)
        start = time.perf_counter()
        train_toy_models(config, data, importance, train=train, batch_size=options.batch)
        seconds = {"sampled": (time.perf_counter() - start) / (n_models * options.steps)}
        if options.features <= 3:
            start = time.perf_counter()
            train_exactly(config, data, importance, train=train)
            seconds["exact"] = (time.perf_counter() - start) / (n_models * options.steps)
        for name, value in seconds.items():
            ratios[name].append(alone / value)
            times = f"alone {alone * 1e6:.0f}, batched {value * 1e6:.2f} us per model and step"
            print(f"round {round_index}, {name}: {times}, {alone / value:.0f} times faster", flush=True)
    for name, values in ratios.items():
        if values:
            print(f"{name}: {statistics.median(values):.0f} times faster ({min(values):.0f} to {max(values):.0f})")


if __name__ == "__main__":
    main()
