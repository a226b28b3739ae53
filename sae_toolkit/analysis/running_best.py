"""Of each of many latents the few best entries of a stream, at most one of each group, with no loop over latents."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int

KEY_BITS = 40
NONE = 2**KEY_BITS
"""The key of a place that is still empty; keys are below it."""

Vector = Int[np.ndarray, " n"]
Chosen = Int[np.ndarray, " n_chosen"]
Facts = Mapping[str, np.ndarray]
"""What is remembered about entries, by name: arrays `[n_entries ...]`."""


class RunningBest:
    """Per latent the `size` groups whose best entry has the smallest key, each with that entry; of equals the earlier.

    That is what sorting the whole stream would give: a group that is left out has `size` others before it, and those
    only get better. Held are `size` keys and groups (16 bytes) per latent, and the facts of those entries.
    """

    def __init__(self, n_latents: int, size: int) -> None:
        self.size = size
        self.keys = np.full((n_latents, size), NONE, dtype=np.int64)
        self.groups = np.zeros((n_latents, size), dtype=np.int64)
        self.facts: dict[str, np.ndarray] = {}

    def update(self, latents: Vector, keys: Vector, groups: Vector, facts_of: Callable[[Chosen], Facts]) -> None:
        """Takes in entries, those of one latent in the order of the stream; keys are from 0 to 2^40 - 1.

        `facts_of` is asked about the entries (by number) that are among the best for now.
        """
        passing = np.flatnonzero(keys < self.keys[:, -1][latents])
        if len(passing) == 0:
            return
        touched, new_rows = np.unique(latents[passing], return_inverse=True)
        old_rows, old_places = np.nonzero(self.keys[touched] < NONE)
        old = touched[old_rows], old_places
        rows = np.concatenate([old_rows, new_rows.reshape(-1)])
        all_keys = np.concatenate([self.keys[old], keys[passing]])
        all_groups = np.concatenate([self.groups[old], groups[passing]])
        best, ranks = best_of_rows(rows, all_keys, all_groups, self.size)
        at = touched[rows[best]], ranks
        self.keys[touched] = NONE
        self.keys[at], self.groups[at] = all_keys[best], all_groups[best]
        new = best >= len(old_rows)
        stays = best[~new]
        moves = (old[0][stays], old[1][stays]), (at[0][~new], ranks[~new])
        self.move_facts(moves[0], moves[1])
        self.set_facts((at[0][new], ranks[new]), facts_of(passing[best[new] - len(old_rows)]))

    def move_facts(self, places: tuple[Chosen, Chosen], to: tuple[Chosen, Chosen]) -> None:
        for table in self.facts.values():
            table[to] = table[places]

    def set_facts(self, places: tuple[Chosen, Chosen], facts: Facts) -> None:
        for name, values in facts.items():
            if name not in self.facts:
                self.facts[name] = np.zeros((*self.keys.shape, *values.shape[1:]), dtype=values.dtype)
            self.facts[name][places] = values

    def of(self, latent: int) -> Facts:
        """The facts of one latent's entries, best first, and under "group" the group of each."""
        n = int((self.keys[latent] < NONE).sum())
        return {"group": self.groups[latent, :n]} | {name: table[latent, :n] for name, table in self.facts.items()}


def best_of_rows(rows: Vector, keys: Vector, groups: Vector, size: int) -> tuple[Chosen, Chosen]:
    """Places of the `size` best groups' best entries in every row, in order, and their ranks; of equals the earlier."""
    order = np.argsort(rows << KEY_BITS | keys, kind="stable")
    by_group = np.lexsort((groups[order], rows[order]))  # stable: of a group the best one comes first
    same_row = np.diff(rows[order][by_group], prepend=-1) == 0
    repeated = same_row & (np.diff(groups[order][by_group], prepend=0) == 0)
    order = order[np.sort(by_group[~repeated])]
    sorted_rows = rows[order]
    counts = np.bincount(sorted_rows)
    ranks = np.arange(len(order)) - (np.cumsum(counts) - counts)[sorted_rows]
    chosen = ranks < size
    return order[chosen], ranks[chosen]
