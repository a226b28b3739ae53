"""Several SAEs that share one pass over a source, against each of them alone: seconds per step.

    .venv/bin/python benchmarks/grid_speed.py --saes 4

Sharing should cost no more than the steps of all SAEs and one pass of the source. The SAEs take turns in every round
(alone, alone, ..., together), so that a noisy machine is noisy for all. That the weights are bit for bit those of each
SAE trained alone is a test (tests/contract/test_training.py).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from sae_toolkit import BatchTopKSAE, TopKSAE, TrainConfig
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import dataset_b
from sae_toolkit.plan.probe import RepeatedBatches
from sae_toolkit.saes import AbstractSAE
from sae_toolkit.training.run import TrainingRun

BATCH = 4096


def seconds_of(work: Callable[[], Any], n: int) -> float:
    started = time.perf_counter()
    for _ in range(n):
        work()
    return (time.perf_counter() - started) / n


def grid(n_saes: int, d_in: int, d_sae: int) -> dict[str, AbstractSAE]:
    """TopK and BatchTopK in turns, k from 4 upwards."""
    saes: dict[str, AbstractSAE] = {}
    for i in range(n_saes):
        variant = (TopKSAE, BatchTopKSAE)[i % 2]
        saes[f"{variant.__name__}{i}"] = variant(variant.Config(d_in=d_in, d_sae=d_sae, k=4 * (i + 1)), seed=i)
    return saes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", type=int, default=4)
    parser.add_argument("--d-sae", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="per round")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source = SuperpositionSource(dataset_b(0))
    config = TrainConfig(n_samples=10**9, batch_size=BATCH)
    stream = source.stream(BATCH, seed=0, split="train")
    ready = RepeatedBatches(source, next(stream).activations)  # alone, the steps are timed without their source

    def run_of(saes: dict[str, AbstractSAE], of: Any) -> TrainingRun:
        run = TrainingRun(saes, of, config, {}, {name: next(iter(source.sites)) for name in saes})
        run.prepare_()
        run.advance_()
        return run

    alone = {name: run_of({name: sae}, ready) for name, sae in grid(options.saes, source.d_in, options.d_sae).items()}
    works: dict[str, Callable[[], Any]] = {name: run.advance_ for name, run in alone.items()}
    works["source"] = lambda: next(stream)
    works["together"] = run_of(grid(options.saes, source.d_in, options.d_sae), source).advance_
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds):
        rounds.append({name: seconds_of(work, options.steps) for name, work in works.items()})
    for name in works:
        print(f"{name:<16} {statistics.median(each[name] for each in rounds) * 1e3:>9.2f} ms per step")
    ratio = statistics.median(each["together"] / sum(t for n, t in each.items() if n != "together") for each in rounds)
    print(f"together over the sum of all steps and the source: {ratio:.2f}")


if __name__ == "__main__":
    main()
