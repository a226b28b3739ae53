"""Examples of latents against sorting every activation, and their windows against the text itself."""

import tracemalloc
from collections import Counter
from math import isnan

import numpy as np
import pytest
import torch
from text_world import BOS, EOS, N_FEATURES, Identity, Samples, TextWorld

from sae_toolkit.analysis import latent_chunks
from sae_toolkit.analysis.activation_statistics import ActivationStatistics
from sae_toolkit.analysis.examples import Examples, ExamplesConfig, draws_of, offsets_of
from sae_toolkit.analysis.held_out import read_held_out
from sae_toolkit.analysis.latent_chunks import ChunkBuilder, latents_of
from sae_toolkit.seeding import generator_for

CONFIG = ExamplesConfig(n_top=6, n_per_band=2, half_width=3)


def collected(source, *, config=CONFIG, seed=0, latents=None, n_samples=10**6, batch_size=13):
    """Examples and statistics after one pass of the identity dictionary."""
    chosen = list(range(source.d_in)) if latents is None else latents
    examples, statistics = Examples(chosen, config=config, seed=seed), ActivationStatistics(len(chosen))
    builder = ChunkBuilder()
    place = torch.full((source.d_in,), -1)
    place[torch.tensor(chosen)] = torch.arange(len(chosen))

    def take(chunk):
        if chunk is not None:
            statistics.update(chunk)
            examples.update(chunk)

    for part in read_held_out(source, n_samples=n_samples, batch_size=batch_size):
        latents = latents_of(Identity(source.d_in), part.batch.activations)
        take(builder.add(part, latent_chunks.of_chosen(latents, place)))
    take(builder.take())
    return examples, statistics


def examples_of(source, latent, **changes):
    examples, statistics = collected(source, **changes)
    return examples.of(
        latent,
        lambda values: statistics.quantiles(latent, values),
        token_texts=source.token_texts,
        feature_names=source.feature_names,
    )


def window_ids(source, row, position, half_width=CONFIG.half_width):
    context = source.token_ids.shape[1]
    places = range(max(0, position - half_width), min(context, position + half_width + 1))
    return [int(source.token_ids[row, p]) for p in places], list(places)


def best_of_each_document(source, order, latent):
    """Numbers of kept tokens, the first in the given order of every document."""
    documents, found = set(), []
    known = source.samples()
    for i in order:
        if known["activations"][i, latent] != 0 and int(known["document_ids"][i]) not in documents:
            documents.add(int(known["document_ids"][i]))
            found.append(i)
    return found


def without_copies(source, numbers, n, documents=(), windows=()):
    """The first n whose document and window are new."""
    known, found = source.samples(), []
    documents, windows = set(documents), set(windows)
    for i in numbers:
        window = tuple(window_ids(source, int(known["row"][i]), int(known["position"][i]))[0])
        if len(found) < n and int(known["document_ids"][i]) not in documents and window not in windows:
            documents.add(int(known["document_ids"][i]))
            windows.add(window)
            found.append(i)
    return found, documents, windows


def sorted_top(source, latent):
    """By a full sort, the earlier of equals first."""
    z = source.samples()["activations"][:, latent]
    order = sorted(range(len(z)), key=lambda i: (-abs(float(z[i])), i))
    return without_copies(source, best_of_each_document(source, order, latent)[: 2 * CONFIG.n_top], CONFIG.n_top)


def places_of(found, band):
    return [
        (example.document, example.position, example.activations[example.peak])
        for example in found
        if example.band == band
    ]


def place_in(source, i, latent):
    known = source.samples()
    return int(known["document_ids"][i]), int(known["position"][i]), float(known["activations"][i, latent])


@pytest.fixture(scope="module")
def world():
    """About 1,900 kept tokens in 290 documents; activations in quarters, so that many are equal."""
    return TextWorld(n_rows=200)


@pytest.fixture(scope="module")
def pass_over(world):
    return collected(world)


def found_in(pass_over, world, latent):
    examples, statistics = pass_over
    return examples.of(
        latent,
        lambda values: statistics.quantiles(latent, values),
        token_texts=world.token_texts,
        feature_names=world.feature_names,
    )


# Which activations are chosen


def test_the_top_is_that_of_a_full_sort_and_the_earlier_of_equals_comes_first(world, pass_over):
    n_ties = 0
    for latent in range(world.d_in):
        expected = [place_in(world, i, latent) for i in sorted_top(world, latent)[0]]
        assert places_of(found_in(pass_over, world, latent), "top") == expected
        n_ties += len(expected) - len({value for _, _, value in expected})
    assert n_ties > 20


def test_bands_hold_what_the_draw_says(world, pass_over):
    _, statistics = pass_over
    known = world.samples()
    n_checked = 0
    for latent in range(world.d_in):
        top, documents, windows = sorted_top(world, latent)
        offset = offsets_of(np.arange(world.d_in), 0)[latent]
        keys = [(int(draw) + int(offset)) % 2**40 for draw in draws_of(0, len(known["row"]), 0)]
        order = sorted(range(len(keys)), key=lambda i: (keys[i], i))
        held = best_of_each_document(world, order, latent)[: 4 * 2 * 4]
        strength = known["activations"][:, latent].numpy()
        quantiles = statistics.quantiles(latent, strength[held])
        room, chosen = Counter({band: CONFIG.n_per_band for band in range(4)}), []
        for i, quantile in zip(held, quantiles, strict=True):
            band = int(quantile * 4)
            if room[band]:
                added, documents, windows = without_copies(world, [i], 1, documents, windows)
                room[band] -= len(added)
                chosen += [(band, i) for i in added]
        for band, name in enumerate(CONFIG.bands):
            own = sorted((i for b, i in chosen if b == band), key=lambda i: (-strength[i], chosen.index((band, i))))
            assert places_of(found_in(pass_over, world, latent), name) == [place_in(world, i, latent) for i in own]
            n_checked += len(own)
        assert top
    assert n_checked > 50


def test_bands_come_after_the_top_and_from_the_strongest_to_the_weakest(world, pass_over):
    found = found_in(pass_over, world, 2)
    order = ["top", "75-100 %", "50-75 %", "25-50 %", "0-25 %"]
    assert [example.band for example in found] == sorted((example.band for example in found), key=order.index)


def test_no_document_and_no_window_is_shown_twice(world, pass_over):
    for latent in range(world.d_in):
        found = found_in(pass_over, world, latent)
        assert len({example.document for example in found}) == len(found) > CONFIG.n_top
        assert len({example.tokens for example in found}) == len(found)


def test_copies_of_a_text_count_once():
    """Every second row repeats the one before it: without the rule, the top would be pairs."""
    world = TextWorld(n_rows=60)
    for name in ("token_ids", "kept", "activations", "truth"):
        getattr(world, name)[1::2] = getattr(world, name)[::2]
    world.document_ids = torch.arange(60)[:, None].expand(60, 12)
    found = examples_of(world, 1)
    assert len({example.tokens for example in found}) == len(found)
    assert all(example.document % 2 == 0 for example in found if example.band == "top")


def test_the_draw_is_uniform_over_a_latents_activations():
    """Five activations in five documents and one place: over 150 seeds each is drawn as often as the others."""
    x = torch.arange(1.0, 6.0)[:, None]
    config = ExamplesConfig(n_top=0, n_per_band=1, quantiles=(0.0, 1.0))
    drawn = Counter(int(examples_of(Samples(x), 0, config=config, seed=seed)[0].activations[0]) for seed in range(150))
    assert set(drawn) == {1, 2, 3, 4, 5}
    assert all(abs(count - 30) < 4 * (150 * 0.2 * 0.8) ** 0.5 for count in drawn.values())


# What they show


def test_windows_show_the_text_around_the_peak_and_the_latent_at_each_token(world, pass_over):
    n_special = 0
    rows_of_documents = {}
    for row, documents in enumerate(world.document_ids.tolist()):
        for document in documents:
            rows_of_documents.setdefault(document, []).append(row)
    for latent in range(world.d_in):
        for example in found_in(pass_over, world, latent):
            candidates = []
            for row in set(rows_of_documents[example.document]):
                ids, places = window_ids(world, row, example.position)
                acts = [float(world.activations[row, p, latent]) if world.kept[row, p] else None for p in places]
                candidates.append((tuple(world.token_texts[i] for i in ids), acts, places.index(example.position)))
            shown = [None if isnan(z) else z for z in example.activations]
            assert (example.tokens, shown, example.peak) in candidates
            n_special += shown.count(None)
    assert n_special > 50


def test_the_truth_at_the_peak_is_told_by_name_strongest_first(world, pass_over):
    known = world.samples()
    for example in found_in(pass_over, world, 0):
        at = (known["document_ids"] == example.document) & (known["position"] == example.position)
        rows = [
            [(f"feature {f}", float(row[f])) for f in reversed(range(N_FEATURES)) if row[f] != 0]
            for row in known["truth"][at]
        ]
        assert [(name, pytest.approx(value)) for name, value in example.truth] in rows


def test_special_tokens_are_never_a_peak(world, pass_over):
    """BOS has id 0, and PAD is EOS: a mask by truthiness, or by the first of two equal ids, would let one through."""
    special = {world.token_texts[BOS], world.token_texts[EOS]}
    for latent in range(world.d_in):
        for example in found_in(pass_over, world, latent):
            assert example.tokens[example.peak] not in special


def test_samples_without_text_are_examples_of_one_activation():
    found = examples_of(Samples(torch.tensor([[1.0], [0.0], [3.0], [2.0]])), 0)
    assert [example.activations for example in found] == [(3.0,), (2.0,), (1.0,)]
    assert all(e.tokens == () and e.peak == 0 and e.document is None and e.position is None for e in found)


def test_documents_of_samples_count_once_too():
    x = torch.tensor([[1.0], [5.0], [3.0], [2.0]])
    found = examples_of(Samples(x, document_ids=torch.tensor([7, 7, 9, 9])), 0)
    assert [(example.activations[0], example.document) for example in found] == [(5.0, 7), (3.0, 9)]


def test_tokens_without_texts_are_shown_by_their_ids(world, pass_over):
    examples, statistics = pass_over
    found = examples.of(0, lambda values: statistics.quantiles(0, values))
    assert set(found[0].tokens) <= {f"[{i}]" for i in range(20)}
    assert found[0].truth == ()


def test_a_signed_latent_is_ranked_by_its_distance_from_zero():
    x = torch.tensor([[1.0], [-4.0], [3.0], [-2.0]])
    assert [example.activations[0] for example in examples_of(Samples(x), 0)] == [-4.0, 3.0, -2.0, 1.0]


def test_a_dead_latent_has_no_examples():
    assert examples_of(Samples(torch.zeros(5, 2)), 1) == ()


# What must not matter


@pytest.mark.parametrize(("entries", "rows_at_once"), [(1, 5), (40, 7), (300, 2)])
def test_the_cut_into_batches_changes_nothing(world, pass_over, monkeypatch, entries, rows_at_once):
    monkeypatch.setattr(latent_chunks, "FIRST_ENTRIES", entries)
    monkeypatch.setattr(latent_chunks, "MOST_ENTRIES", entries)
    other = TextWorld(n_rows=200, rows_at_once=rows_at_once)
    cut = collected(other)
    for latent in range(world.d_in):
        assert repr(found_in(cut, other, latent)) == repr(found_in(pass_over, world, latent))


def test_other_latents_change_nothing(world, pass_over):
    alone = collected(world, latents=[6, 2])
    assert repr(found_in(alone, world, 0)) == repr(found_in(pass_over, world, 6))
    assert repr(found_in(alone, world, 1)) == repr(found_in(pass_over, world, 2))


def test_another_seed_draws_others_and_keeps_the_top(world, pass_over):
    other = collected(world, seed=1)
    ours, theirs = found_in(pass_over, world, 3), found_in(other, world, 3)
    assert places_of(ours, "top") == places_of(theirs, "top")
    assert places_of(ours, "0-25 %") != places_of(theirs, "0-25 %")


def test_memory_does_not_grow_with_the_number_of_tokens():
    def peak_and_stored(n):
        x = torch.rand(n, 6, generator=generator_for(0, "long stream")).sub_(0.5).relu_()
        source = Samples(x, document_ids=torch.arange(n) // 50)
        tracemalloc.start()
        examples, statistics = collected(source, batch_size=1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        tables = [*examples.strongest.facts.values(), *examples.drawn.facts.values(), statistics.positive]
        return peak, sum(table.nbytes for table in tables)

    latent_chunks_limit = 5000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_chunks, "FIRST_ENTRIES", latent_chunks_limit)
        patch.setattr(latent_chunks, "MOST_ENTRIES", latent_chunks_limit)
        small, large = peak_and_stored(10_000), peak_and_stored(100_000)
    assert large[1] == small[1]
    assert large[0] < 1.2 * small[0]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"n_top": -1}, "may be negative"),
        ({"quantiles": (0.5,)}, "two of them"),
        ({"quantiles": (0.5, 0.2)}, "ascend"),
        ({"quantiles": (0.0, 1.5)}, "ascend"),
    ],
)
def test_impossible_choices_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        ExamplesConfig(**choice)
