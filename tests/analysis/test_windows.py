"""Windows against reading the rows token by token, in chunks of one row and of many."""

import numpy as np
import pytest
from text_world import Identity, TextWorld

from sae_toolkit.analysis import windows
from sae_toolkit.analysis.held_out import read_held_out
from sae_toolkit.analysis.latent_chunks import ChunkBuilder, latents_of
from sae_toolkit.analysis.windows import windows_of


def whole_chunk(world):
    builder = ChunkBuilder()
    for part in read_held_out(world, n_samples=10**6):
        assert builder.add(part, latents_of(Identity(world.d_in), part.batch.activations)) is None
    return builder.take()


@pytest.mark.parametrize(("n_rows", "context", "half_width"), [(1, 5, 9), (2, 6, 2), (30, 12, 4), (30, 12, 0)])
@pytest.mark.parametrize("at_once", [7, 8192])
def test_windows_are_what_stands_in_the_row(n_rows, context, half_width, at_once, monkeypatch):
    monkeypatch.setattr(windows, "ENTRIES_AT_ONCE", at_once)
    world = TextWorld(n_rows=n_rows, context=context)
    chunk, known = whole_chunk(world), world.samples()
    entries = np.arange(len(chunk.values))[::-1]  # in any order
    found = windows_of(chunk, entries, chunk.latents[entries], half_width)
    assert len(entries) > 5
    for i, entry in enumerate(entries):
        latent, sample = int(chunk.latents[entry]), int(chunk.samples[entry])
        row, position = int(known["row"][sample]), int(known["position"][sample])
        for column, place in enumerate(range(position - half_width, position + half_width + 1)):
            inside = 0 <= place < context
            assert found.token_ids[i, column] == (int(world.token_ids[row, place]) if inside else -1)
            kept = inside and bool(world.kept[row, place])
            expected = float(world.activations[row, place, latent]) if kept else float("nan")
            np.testing.assert_equal(float(found.activations[i, column]), expected)
