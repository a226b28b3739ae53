"""The running best of a stream against a sort of all of it."""

import numpy as np
import pytest

from sae_toolkit.analysis.running_best import RunningBest

N_LATENTS, SIZE = 7, 4


def stream(seed, n=600, n_keys=30, n_groups=25):
    """Entries latent by latent, of which many have equal keys and groups; chunk by chunk."""
    rng = np.random.default_rng(seed)
    return rng.integers(N_LATENTS, size=n), rng.integers(n_keys, size=n), rng.integers(n_groups, size=n)


def sorted_best(latents, keys, groups, latent):
    """Places of the best entries of a latent by the plainest rule: sort all, walk, take a group once."""
    own = [i for i in range(len(latents)) if latents[i] == latent]
    taken, found = set(), []
    for i in sorted(own, key=lambda i: (keys[i], i)):
        if groups[i] not in taken:
            taken.add(groups[i])
            found.append(i)
    return found[:SIZE]


def fed(latents, keys, groups, chunk):
    best = RunningBest(N_LATENTS, SIZE)
    for start in range(0, len(latents), chunk):
        part = slice(start, start + chunk)
        order = np.argsort(latents[part], kind="stable")

        def facts(entries, start=start, order=order):
            return {"number": start + order[entries]}

        best.update(latents[part][order], keys[part][order], groups[part][order], facts)
    return best


@pytest.mark.parametrize("chunk", [1, 7, 64, 600])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_are_those_of_a_full_sort_ties_included(seed, chunk):
    latents, keys, groups = stream(seed)
    best = fed(latents, keys, groups, chunk)
    for latent in range(N_LATENTS):
        expected = sorted_best(latents, keys, groups, latent)
        assert best.of(latent)["number"].tolist() == expected
        assert best.of(latent)["group"].tolist() == groups[expected].tolist()


def test_fewer_groups_than_places_leave_places_empty():
    latents, keys, groups = stream(0, n=200, n_groups=2)
    best = fed(latents, keys, groups, 50)
    assert [len(best.of(latent)["number"]) for latent in range(N_LATENTS)] == [2] * N_LATENTS


def test_nothing_seen_is_nothing_found():
    assert len(RunningBest(3, 2).of(1)["group"]) == 0


def test_the_largest_key_still_counts():
    best = RunningBest(1, 2)
    best.update(np.zeros(1, dtype=np.int64), np.array([2**40 - 1]), np.array([5]), lambda e: {"number": e})
    assert best.of(0)["group"].tolist() == [5]
