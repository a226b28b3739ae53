"""One small run with checkpoints, as a process of its own: `python resumable_run.py FOLDER VARIANTS_JSON OPTIONS_JSON`.

Prints the SHA-256 of all trained weights; after a signal it exits with 3 and prints what `TrainingInterrupted` said.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from toy import ToySource, small_config

from sae_toolkit import AbstractSAE, Checkpoints, LearningConfig, RevivalConfig, TrainConfig, train, weights_sha256
from sae_toolkit.training import TrainingInterrupted

N_STEPS, BATCH = 120, 32


def run(
    folder: Path | None,
    variants: list[str],
    *,
    delay: float = 0.0,
    resume: bool = False,
    target_l0: float | None = None,
) -> str:
    """All variants in one run; those with a penalty are steered."""
    revival = RevivalConfig(dead_after_samples=96, resample_every_samples=320)
    learning = LearningConfig(revival=revival)
    config = TrainConfig(n_samples=N_STEPS * BATCH, batch_size=BATCH, preparation_samples=64, learning=learning)
    saes = {name: AbstractSAE.variants[name](small_config(AbstractSAE.variants[name])) for name in variants}
    steered = {n: replace(learning, target_l0=target_l0) for n, sae in saes.items() if sae.has_sparsity_penalty}
    keeper = Checkpoints(folder, every_samples=10 * BATCH) if folder else None
    snapshot = keeper.latest() if keeper and resume else None
    train(saes, ToySource(delay=delay), config, learning=steered, checkpoints=keeper, resume_from=snapshot)
    return " ".join(weights_sha256(sae) for sae in saes.values())


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        sys.stdout.write(run(Path(sys.argv[1]), json.loads(sys.argv[2]), **json.loads(sys.argv[3])))
    except TrainingInterrupted as interrupted:
        sys.stdout.write(f"{interrupted}\n{interrupted.checkpoint}")
        sys.exit(3)
