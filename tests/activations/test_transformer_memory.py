"""A long run on a language model takes no more memory at its end than near its beginning."""

import subprocess
import sys
from pathlib import Path

import pytest

from sae_toolkit.activations.example_language import write_example_model, write_example_text

SCRIPT = """
import os, sys, torch
from sae_toolkit import TopKSAE, TrainConfig, train
from sae_toolkit.activations import ModelConfig, Text, TextConfig, TransformerSource, load_model
torch.set_num_threads(1)
model = load_model(ModelConfig(name=sys.argv[1], device="cpu"))
text = Text.read(model.tokenizer, TextConfig(path=sys.argv[2], context_length=32))
hooks = ("blocks.1.hook_resid_pre",)
source = TransformerSource(model, text, TransformerSource.Config(hooks=hooks, shuffle_buffer="4096 tokens"))
resident = {}
def log(record):
    pages = int(open("/proc/self/statm").read().split()[1])
    resident[record["samples"]] = pages * os.sysconf("SC_PAGE_SIZE")
config = TrainConfig(n_samples=130_000, batch_size=500, preparation_samples=1000)
train(TopKSAE(TopKSAE.Config(d_in=32, d_sae=256, k=8)), source, config, log=log, log_every_steps=20)
print(resident[30_000], resident[130_000])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux' /proc")
def test_100_000_more_tokens_take_no_more_memory(tmp_path: Path) -> None:
    model, text = write_example_model(tmp_path / "model"), write_example_text(tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(model), str(text)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    early, late = map(int, done.stdout.split())
    kept_if_nothing_were_freed = 100_000 * 32 * 4  # the activations alone, in bytes
    assert late - early < kept_if_nothing_were_freed / 4
