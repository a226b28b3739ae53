"""Nearest latents against all cosines by NumPy."""

import numpy as np
import pytest
import torch

from sae_toolkit.analysis.neighbours import nearest_latents
from sae_toolkit.metrics import matching
from sae_toolkit.seeding import generator_for


@pytest.mark.parametrize("entries", [1, 2**22])
def test_the_nearest_are_those_of_all_cosines(entries, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK_ENTRIES", entries)
    rows = torch.randn(30, 5, generator=generator_for(0, "directions"))
    found = nearest_latents(rows, [4, 0, 29], 6)
    units = rows.double().numpy() / np.linalg.norm(rows.double().numpy(), axis=1, keepdims=True)
    for latent, neighbours in zip([4, 0, 29], found, strict=True):
        cosines = units @ units[latent]
        expected = [i for i in np.argsort(-cosines) if i != latent][:6]
        assert [n.index for n in neighbours] == expected
        assert [n.value for n in neighbours] == pytest.approx(cosines[expected].tolist(), abs=1e-12)


def test_a_latent_is_not_its_own_neighbour_even_among_copies():
    (neighbours,) = nearest_latents(torch.ones(3, 2), [1], 5)
    assert sorted(n.index for n in neighbours) == [0, 2]


def test_the_only_latent_has_no_neighbour():
    assert nearest_latents(torch.ones(1, 2), [0], 5) == [()]


def test_a_latent_that_writes_nothing_has_cosine_0():
    (neighbours,) = nearest_latents(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), [0], 1)
    assert neighbours[0].value == 0
