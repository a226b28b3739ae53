"""Correlations of latents with neurons against SciPy's."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from sae_toolkit.analysis.correlated_neurons import CorrelatedNeurons
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows


@pytest.fixture(scope="module")
def samples():
    """2,000 samples of 6 latents and 7 neurons; latent 5 is dead, neuron 6 constant, latent 0 rectifies neuron 3."""
    g = generator_for(0, "neurons")
    neurons = torch.randn(2000, 7, generator=g) + 5
    neurons[:, 6] = -0.1
    latents = torch.rand(2000, 6, generator=g) * (torch.rand(2000, 6, generator=g) < 0.1)
    latents[:, 0], latents[:, 5] = (neurons[:, 3] - 6).relu(), 0
    return latents, neurons


def correlated(latents, neurons, batch_size):
    found = CorrelatedNeurons()
    for start in range(0, len(latents), batch_size):
        part = slice(start, start + batch_size)
        found.update(SparseRows.from_dense(latents[part]), neurons[part])
    return found


@pytest.mark.parametrize("batch_size", [1, 300, 2000])
def test_correlations_are_pearsons_over_all_samples(samples, batch_size):
    latents, neurons = samples
    n = 40 if batch_size == 1 else 2000
    r = correlated(latents[:n], neurons[:n], batch_size).correlations()
    for i in range(6):
        for j in range(7):
            z, a = latents[:n, i].double().numpy(), neurons[:n, j].double().numpy()
            expected = pearsonr(z, a).statistic if z.std() > 0 and a.std() > 1e-6 else 0.0
            assert r[i, j] == pytest.approx(expected, abs=1e-9)


def test_the_strongest_are_ranked_by_size_and_keep_their_sign(samples):
    latents, neurons = samples
    found = correlated(latents, -neurons, 500)
    assert found.strongest(2)[0][0].index == 3
    assert found.strongest(2)[0][0].label == "neuron 3"
    assert found.strongest(2)[0][0].value < -0.5
    sizes = [abs(neuron.value) for neuron in found.strongest(7)[1]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 7
    assert np.isfinite(sizes).all()


def test_nothing_seen_is_an_error():
    with pytest.raises(ValueError, match="no sample seen"):
        CorrelatedNeurons().correlations()
