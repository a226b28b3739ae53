"""What is kept is bounded, the same however the data is batched, and divided by document where that is possible."""

import numpy as np
import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.kept_latents import KeptLatents
from sae_toolkit.saes.base import SAEOutput


def fed(latents, *, document_ids=None, batch_size=3, **limits):
    kept = KeptLatents(**limits)
    counts = []
    for start in range(0, len(latents), batch_size):
        part = slice(start, start + batch_size)
        x = torch.zeros(len(latents[part]), 1)
        ids = None if document_ids is None else document_ids[part]
        counts.append(kept.update(ActivationBatch(x, document_ids=ids), SAEOutput(x, latents[part])))
    return kept, counts


def random_latents(n=20, d_sae=5):
    return torch.randn(n, d_sae, generator=torch.Generator().manual_seed(0)).round(decimals=1)


def test_only_what_is_above_zero_is_kept():
    latents = random_latents()
    kept, counts = fed(latents)
    assert np.array_equal(kept.matrix().toarray(), latents.relu().numpy())
    assert sum(counts) == kept.n_samples == 20


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_the_first_samples_are_kept(batch_size):
    latents = random_latents()
    kept, counts = fed(latents, batch_size=batch_size, limit=7)
    assert np.array_equal(kept.matrix().toarray(), latents[:7].relu().numpy())
    assert sum(counts) == 7


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_entries_are_bounded_and_nothing_follows_the_first_sample_that_does_not_fit(batch_size):
    latents = torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]])
    kept, counts = fed(latents, batch_size=batch_size, max_entries=4)
    assert kept.matrix().toarray().tolist() == latents[:2].tolist()
    assert sum(counts) == 2


def test_groups_are_documents_where_there_are_enough():
    latents = random_latents(80)
    ids = torch.arange(80) // 10 * 7
    assert fed(latents, document_ids=ids)[0].groups().tolist() == [i // 10 for i in range(80)]
    runs = [i // 32 for i in range(80)]
    assert fed(latents, document_ids=ids % 5)[0].groups().tolist() == runs
    assert fed(latents, document_ids=ids)[0].groups(by_document=False).tolist() == runs
    assert fed(latents)[0].groups().tolist() == runs


def test_nothing_seen():
    with pytest.raises(ValueError, match="no sample seen"):
        KeptLatents().matrix()
