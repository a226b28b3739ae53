"""Rules for every test: no network, one thread, shapes checked, and global random generators stay where they were."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import tests/toy.py

import shape_checks

shape_checks.install()  # before anything imports the package
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, slow ones come first: none is begun when the others are done."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise OSError(f"a test tried to reach the network: {address!r}")
        real_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True)
def global_generators_untouched() -> Iterator[None]:
    """Whatever a test calls must draw from private generators (so must the test itself)."""
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    yield
    assert torch.equal(torch.get_rng_state(), torch_before), "the global torch generator was used; pass generator=..."
    numpy_after = np.random.get_state()
    unchanged = numpy_after[2] == numpy_before[2] and np.array_equal(numpy_after[1], numpy_before[1])
    assert unchanged, "the global numpy generator was used; use numpy.random.default_rng(seed)"


@pytest.fixture
def few_control_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that need controls, but no good ones: k-means and components of few samples."""
    monkeypatch.setattr("sae_toolkit.metrics.ladder.CONTROL_SAMPLES", 3000)
