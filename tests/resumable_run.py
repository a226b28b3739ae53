"""One small run with checkpoints, as a process of its own: `python resumable_run.py FOLDER VARIANT OPTIONS_JSON`.

Prints the SHA-256 of the trained weights; after a signal it exits with 3 and prints what `TrainingInterrupted` said.
"""

import json
import sys
from pathlib import Path

import torch
from toy import ToySource, small_config

from sae_toolkit import AbstractSAE, Checkpoints, LearningConfig, RevivalConfig, TrainConfig, train, weights_sha256
from sae_toolkit.training import TrainingInterrupted

N_STEPS, BATCH = 120, 32


def run(
    folder: Path | None, variant: str, *, delay: float = 0.0, resume: bool = False, target_l0: float | None = None
) -> str:
    revival = RevivalConfig(dead_after_samples=96, resample_every_samples=320)
    learning = LearningConfig(revival=revival, target_l0=target_l0)
    config = TrainConfig(n_samples=N_STEPS * BATCH, batch_size=BATCH, preparation_samples=64, learning=learning)
    sae = AbstractSAE.variants[variant](small_config(AbstractSAE.variants[variant]))
    keeper = Checkpoints(folder, every_samples=10 * BATCH) if folder else None
    snapshot = keeper.latest() if keeper and resume else None
    train(sae, ToySource(delay=delay), config, checkpoints=keeper, resume_from=snapshot)
    return weights_sha256(sae)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        sys.stdout.write(run(Path(sys.argv[1]), sys.argv[2], **json.loads(sys.argv[3])))
    except TrainingInterrupted as interrupted:
        sys.stdout.write(f"{interrupted}\n{interrupted.checkpoint}")
        sys.exit(3)
