"""A small run on a language model, a process of its own: `python transformer_run.py MODEL TEXT RUN CACHE RESUME STOP`.

CACHE is a folder of stored activations or "live"; RESUME is "resume" or "new"; after STOP checkpoints the process kills
itself with SIGKILL (0: never). Prints the SHA-256 of the weights.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from sae_toolkit import AbstractSAE, BatchTopKSAE, Checkpoints, TopKSAE, TrainConfig, train, weights_sha256
from sae_toolkit.activations import CachedSource, ModelConfig, Text, TextConfig, TransformerSource, load_model
from sae_toolkit.training import TrainingSnapshot

HOOKS = ("blocks.0.hook_mlp_out", "blocks.1.hook_resid_pre")
BUFFER = "700 tokens"
N_STEPS, BATCH = 60, 100


class Killer(Checkpoints):
    """A process killed while it is busy: SIGKILL right after a checkpoint, and a few more steps, were done."""

    stop_after = 0
    saved = 0

    def save(self, snapshot: TrainingSnapshot, saes: Mapping[str, AbstractSAE]) -> Path:
        target = super().save(snapshot, saes)
        Killer.saved += 1
        if Killer.saved == Killer.stop_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return target


def make_source(model: str, text: str) -> TransformerSource:
    loaded = load_model(ModelConfig(name=model, device="cpu"))
    packed = Text.read(loaded.tokenizer, TextConfig(path=text, context_length=16))
    config = TransformerSource.Config(hooks=HOOKS, rows_per_forward=5, shuffle_buffer=BUFFER)
    return TransformerSource(loaded, packed, config)


def run(model: str, text: str, folder: str, cache: str, resume: str, stop_after: str) -> str:
    source = make_source(model, text) if cache == "live" else CachedSource(Path(cache), shuffle_buffer=BUFFER)
    saes: dict[str, AbstractSAE] = {
        "mlp": BatchTopKSAE(BatchTopKSAE.Config(d_in=32, d_sae=48, k=4)),
        "residual": TopKSAE(TopKSAE.Config(d_in=32, d_sae=64, k=4)),
    }
    Killer.stop_after = int(stop_after)
    keeper = Killer(Path(folder), every_samples=7 * BATCH)
    train(
        saes,
        source,
        TrainConfig(n_samples=N_STEPS * BATCH, batch_size=BATCH, preparation_samples=500),
        sites=dict(zip(saes, HOOKS, strict=True)),
        checkpoints=keeper,
        resume_from=keeper.latest() if resume == "resume" else None,
    )
    return " ".join(weights_sha256(sae) for sae in saes.values())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(run(*sys.argv[1:]))
