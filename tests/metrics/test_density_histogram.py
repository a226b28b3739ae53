"""Counts of latents by firing rate."""

import pytest
import torch

from sae_toolkit.metrics.density_histogram import density_histogram


def test_by_hand():
    # log10: -3 (on an edge), -2.5, -1, -0.05, 0; two dead
    rates = torch.tensor([0.0, 1e-3, 10**-2.5, 0.1, 10**-0.05, 1.0, 0.0], dtype=torch.float64)
    edges, counts, n_dead = density_histogram(rates)
    assert edges.tolist() == pytest.approx([-3 + i / 8 for i in range(25)])
    assert {round(edges[i], 3): n for i, n in enumerate(counts.tolist()) if n} == {-3: 1, -2.5: 1, -1: 1, -0.125: 2}
    assert n_dead == 2


def test_bins_begin_where_they_are_told_to():
    edges, counts, n_dead = density_histogram(torch.tensor([1e-6, 0.5]), lowest=-4)
    assert edges[0] == -4
    assert counts[0] == 1  # what is rarer counts in the first bin
    assert counts.sum() == 2
    assert n_dead == 0


def test_all_dead():
    edges, counts, n_dead = density_histogram(torch.zeros(5))
    assert (edges[0], edges[-1], counts.sum(), n_dead) == (-2, 0, 0, 5)
