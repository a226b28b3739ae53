"""What tests/conftest.py promises, and what every entry point owes to the process around it."""

import socket
import subprocess
import sys

import pytest
import torch
from toy import VARIANTS, ToySource, small_config, toy_batch

from sae_toolkit import TrainConfig, train


def test_the_network_is_out_of_reach() -> None:
    with socket.socket() as client, pytest.raises(OSError, match="tried to reach the network"):
        client.connect(("127.0.0.1", 9))


def test_the_library_draws_nothing_from_the_global_generator() -> None:
    """Building, training with resampling, encoding: also under conftest's check of every single test."""
    before = torch.get_rng_state()
    for variant in VARIANTS:
        sae = variant(small_config(variant))
        train(sae, ToySource(), TrainConfig(n_samples=96, batch_size=32, preparation_samples=64))
        sae.encode(toy_batch(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_importing_prints_nothing_and_brings_no_optional_library() -> None:
    heavy = ("transformer_lens", "datasets", "wandb", "matplotlib", "sklearn", "scipy", "rich", "huggingface_hub")
    code = f"import sys, sae_toolkit; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
