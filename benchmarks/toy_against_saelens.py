"""Ours beside SAELens on the same samples of the same known world: recovery, samples and seconds to 0.95.

SAELens needs another TransformerLens than we do, so this runs in an environment of its own:

    python -m venv peers && peers/bin/pip install torch==2.13.0 sae-lens==6.54.12 && peers/bin/pip install --no-deps .
    peers/bin/python benchmarks/toy_against_saelens.py --world A --seeds 5 --out saelens_A.json

Both trainers read the same stream of batches and are scored by the same function; ours and theirs take turns, and the
time for scoring is not counted. SAELens runs with the best settings known for this world (learning rate 1e-2, warm-up
100 steps, linear decay over the last 30 %), each variant at its own sparsity setting.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_toolkit import BatchTopKSAE, LearningConfig, ReluSAE, TopKSAE, TrainConfig, train
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import dataset_a, dataset_b

N_POINTS = 20
K = {"A": 6, "B": 8}


def matched_cosine(directions: Tensor, decoder: Tensor) -> tuple[float, float]:
    """Mean matched signed cosine over all features and share of features matched at 0.9 or better."""
    from scipy.optimize import linear_sum_assignment

    unit = decoder.detach() / decoder.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosines = (directions @ unit.T).clamp_min(0).numpy()
    rows, columns = linear_sum_assignment(-cosines)
    matched = cosines[rows, columns]
    return float(matched.sum() / len(directions)), float((matched >= 0.9).sum() / len(directions))


class Clock:
    """Seconds of training, with the scoring taken out, and the curve of scores."""

    def __init__(self, score: Callable[[], float]) -> None:
        self.score, self.paused, self.start = score, 0.0, time.perf_counter()
        self.curve: list[tuple[int, float, float]] = []

    def mark(self, samples: int) -> None:
        seconds = time.perf_counter() - self.start - self.paused
        before = time.perf_counter()
        self.curve.append((samples, seconds, self.score()))
        self.paused += time.perf_counter() - before

    def to(self, level: float) -> tuple[int, float] | None:
        return next(((samples, seconds) for samples, seconds, value in self.curve if value >= level), None)


def batches(source: SuperpositionSource, seed: int, clock: Clock, n_samples: int, batch_size: int) -> Iterator[Tensor]:
    stream = source.stream(batch_size, seed=seed, split="train")
    steps = -(-n_samples // batch_size)
    for step in range(10**9):
        if step and step % (steps // N_POINTS) == 0:
            clock.mark(step * batch_size)
        yield next(stream).activations


def ours(
    variant: str, source: SuperpositionSource, k: int, seed: int, n_samples: int, batch_size: int
) -> dict[str, Any]:
    common: dict[str, Any] = {"d_in": 64, "d_sae": 256}
    sae = {
        "TopK": lambda: TopKSAE(TopKSAE.Config(**common, k=k), seed=seed),
        "BatchTopK": lambda: BatchTopKSAE(BatchTopKSAE.Config(**common, k=k), seed=seed),
        "ReLU": lambda: ReluSAE(ReluSAE.Config(**common), seed=seed),
    }[variant]()
    clock = Clock(lambda: matched_cosine(source.directions, sae.decoder_directions())[0])
    learning = LearningConfig(target_l0=float(k)) if variant == "ReLU" else LearningConfig()
    config = TrainConfig(n_samples=n_samples, batch_size=batch_size, seed=seed, learning=learning)
    every = -(-n_samples // batch_size) // N_POINTS
    train(
        sae,
        source,
        config,
        log=lambda record: clock.mark(record["samples"]),
        log_every_steps=every,
    )
    return summary(clock, source, sae.decoder_directions())


def theirs(
    variant: str, source: SuperpositionSource, k: int, seed: int, n_samples: int, batch_size: int
) -> dict[str, Any]:
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed)
    sae = {
        "TopK": lambda: TopKTrainingSAE(TopKTrainingSAEConfig(d_in=64, d_sae=256, k=k)),
        "BatchTopK": lambda: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=64, d_sae=256, k=k)),
        "ReLU": lambda: StandardTrainingSAE(StandardTrainingSAEConfig(d_in=64, d_sae=256, l1_coefficient=0.5)),
    }[variant]()
    clock = Clock(lambda: matched_cosine(source.directions, sae.W_dec)[0])
    config = SAETrainerConfig(
        total_training_samples=n_samples,
        train_batch_size_samples=batch_size,
        lr=1e-2,
        lr_end=1e-3,
        lr_warm_up_steps=100,
        lr_decay_steps=int(0.3 * n_samples / batch_size),
        logger=LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1),
    )
    SAETrainer(cfg=config, sae=sae, data_provider=batches(source, seed, clock, n_samples, batch_size)).fit()
    clock.mark(n_samples)
    return summary(clock, source, sae.W_dec)


def summary(clock: Clock, source: SuperpositionSource, decoder: Tensor) -> dict[str, Any]:
    cosine, recall = matched_cosine(source.directions, decoder)
    reached = clock.to(0.95)
    return {
        "mean_matched_cosine": cosine,
        "recall_at_0.9": recall,
        "seconds": clock.curve[-1][1],
        "samples_to_0.95": reached[0] if reached else None,
        "seconds_to_0.95": reached[1] if reached else None,
        "curve": clock.curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=("A", "B"), default="A")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=2_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--variants", nargs="+", default=["TopK", "BatchTopK", "ReLU"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        source = SuperpositionSource((dataset_a if options.world == "A" else dataset_b)(seed))
        for variant in options.variants:
            for who, fit in (("ours", ours), ("SAELens", theirs)):
                row = {"who": who, "variant": variant, "seed": seed} | fit(
                    variant, source, K[options.world], seed, options.samples, options.batch
                )
                rows.append(row)
                print({key: value for key, value in row.items() if key != "curve"}, flush=True)
                options.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
