"""Counts, means and histograms of activations against plain loops over all of them."""

from math import isnan

import numpy as np
import pytest
import torch
from text_world import Identity, Samples, TextWorld

from sae_toolkit.analysis import activation_statistics, latent_chunks
from sae_toolkit.analysis.activation_statistics import ActivationStatistics, strength_bins, strength_edges
from sae_toolkit.analysis.held_out import read_held_out
from sae_toolkit.analysis.latent_chunks import ChunkBuilder, latents_of
from sae_toolkit.seeding import generator_for


def statistics_of(source, n_samples=10**6, batch_size=17):
    found, builder = ActivationStatistics(source.d_in), ChunkBuilder()
    for part in read_held_out(source, n_samples=n_samples, batch_size=batch_size):
        chunk = builder.add(part, latents_of(Identity(source.d_in), part.batch.activations))
        if chunk is not None:
            found.update(chunk)
    last = builder.take()
    if last is not None:
        found.update(last)
    return found


def wide_range(n=2000, d=5):
    """Activations over many orders of magnitude, some of them beyond the outermost bins; latent 3 is signed, 4 dead."""
    g = generator_for(3, "wide range")
    x = torch.exp2(60 * torch.rand(n, d, generator=g) - 30) * (torch.rand(n, d, generator=g) < 0.3)
    x[:, 3] *= torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    x[:, 4] = 0
    return x


def by_loop(column):
    """Number, sum and farthest of the nonzero values."""
    n, total, farthest = 0, 0.0, 0.0
    for value in column.double().tolist():
        if value != 0:
            n, total = n + 1, total + value
            farthest = value if abs(value) > abs(farthest) else farthest
    return n, total, farthest


@pytest.mark.parametrize("signed", [False, True])
def test_density_mean_and_largest_are_those_of_a_loop(signed):
    x = wide_range() if signed else wide_range().abs()
    found = statistics_of(Samples(x))
    assert found.n_samples == 2000
    for latent in range(5):
        n, total, farthest = by_loop(x[:, latent])
        assert found.densities()[latent] == n / 2000
        assert found.largest()[latent] == farthest
        if n:
            assert found.means()[latent] == pytest.approx(total / n, rel=1e-12)
    assert isnan(found.means()[4])
    assert found.histogram(4) is None


@pytest.mark.parametrize("signed", [False, True])
def test_histograms_count_every_nonzero_activation_between_their_edges(signed):
    x = wide_range() if signed else wide_range().abs()
    found = statistics_of(Samples(x))
    for latent in range(4):
        histogram = found.histogram(latent)
        values = [v for v in x[:, latent].double().tolist() if v != 0]
        edges, counts = histogram.edges, histogram.counts
        assert len(edges) == len(counts) + 1 <= 31
        assert list(edges) == sorted(set(edges))
        assert sum(counts) == len(values)
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            assert count == sum(low <= v < high if low >= 0 else low < v <= high for v in values)
        assert counts[0] > 0


def test_an_activation_on_an_edge_is_in_the_upper_bin():
    edges = strength_edges()
    on_edges = edges[1:-1].astype(np.float32)
    assert (on_edges.astype(np.float64) == edges[1:-1]).all()
    assert strength_bins(on_edges).tolist() == list(range(1, len(on_edges) + 1))
    assert strength_bins(np.nextafter(np.float32(1), np.float32(0))[None])[0] == 159
    assert strength_bins(np.array([1e-30, 1e30], dtype=np.float32)).tolist() == [0, activation_statistics.N_BINS - 1]


def test_quantiles_are_right_to_within_half_a_bin():
    x = wide_range(n=1000).abs()
    found = statistics_of(Samples(x))
    for latent in range(3):
        values = x[:, latent][x[:, latent] != 0].numpy()
        quantiles, bins = found.quantiles(latent, values), strength_bins(values)
        for value, quantile, own in zip(values, quantiles, bins, strict=True):
            share = (bins == own).mean()
            assert (values < value).mean() <= quantile + share / 2 + 1e-12
            assert (values <= value).mean() >= quantile - share / 2 - 1e-12


def test_nothing_depends_on_the_cut_into_batches_and_chunks(monkeypatch):
    source = TextWorld()
    whole = statistics_of(source)
    for entries in (1, 50):
        monkeypatch.setattr(latent_chunks, "FIRST_ENTRIES", entries)
        monkeypatch.setattr(latent_chunks, "MOST_ENTRIES", entries)
        other = statistics_of(TextWorld(rows_at_once=2))
        assert (whole.counts == other.counts).all()
        assert (whole.positive == other.positive).all()
        np.testing.assert_allclose(whole.sums, other.sums, rtol=1e-13)


def test_special_tokens_are_not_counted():
    source = TextWorld()
    kept = source.samples()["activations"]
    found = statistics_of(source)
    assert found.n_samples == len(kept) < source.token_ids.numel()
    assert found.counts.tolist() == (kept != 0).sum(0).tolist()


def test_exactly_the_samples_asked_for_are_read():
    source = TextWorld()
    found = statistics_of(source, n_samples=101)
    assert found.n_samples == 101
    assert found.counts.tolist() == (source.samples(101)["activations"] != 0).sum(0).tolist()
