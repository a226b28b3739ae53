"""Features that never fire together: groups (pairs are the smallest) of which at most one member fires on a sample."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.ground_truth.firing import Firing, FiringDraw, IndependentDraw, KnownDraw, fired_of_keys


@dataclass(frozen=True, kw_only=True)
class ExclusiveFiring(Firing):
    """At most one member of each group fires, member i with probability p_i; groups are independent of each other.

    A group of one is an independent feature. "Anticorrelated" features of Toy Models of Superposition (Elhage et al.
    2022) are groups of two.
    """

    groups: Int[Tensor, " n_features"]
    """The group of each feature: any numbers from 0; features with equal numbers exclude each other."""

    @classmethod
    def pairs(cls, probabilities: Float[Tensor, " n_features"]) -> "ExclusiveFiring":
        """Features 2i and 2i + 1 exclude each other; an odd last feature is independent."""
        return cls(probabilities=probabilities, groups=torch.arange(len(probabilities)) // 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.groups) != self.n_features or int(self.groups.min()) < 0:
            raise ValueError(
                f"ExclusiveFiring: {len(self.groups)} group numbers given for {self.n_features} features. Give one "
                "number >= 0 per feature."
            )
        totals = self.group_totals()
        worst = int(totals.argmax())
        if float(totals[worst]) > 1 + 1e-6:
            raise ValueError(
                f"ExclusiveFiring: the probabilities of group {worst} sum to {float(totals[worst]):g}, but at most one "
                "member fires, so that the sum may not exceed 1. Lower them or split the group."
            )

    def group_totals(self) -> Float[Tensor, " n_groups"]:
        """Probability that any member of each group fires (float64)."""
        totals = torch.zeros(int(self.groups.max()) + 1, dtype=torch.float64)
        return totals.index_add(0, self.groups.long(), self.probabilities.double())

    def draw(self, n_samples: int, generator: torch.Generator) -> FiringDraw:
        """First which groups fire, then which member of each, by the inverse of the cumulative probabilities."""
        totals = self.group_totals().clamp(max=1)
        members = (self.probabilities > 0).nonzero()[:, 0]
        members = members[self.groups[members].argsort(stable=True)]
        fired = IndependentDraw(totals, n_samples, generator).among(torch.arange(len(totals)))
        uniform = torch.rand(len(fired.rows), generator=generator, dtype=torch.float64)
        ends = self.probabilities[members].double().cumsum(0)
        sizes = torch.bincount(self.groups[members], minlength=len(totals))
        last = sizes.cumsum(0) - 1
        first = last - sizes + 1
        starts = (totals.cumsum(0) - totals)[fired.features]
        chosen = torch.searchsorted(ends, starts + uniform * totals[fired.features], right=True)
        chosen = chosen.clamp(first[fired.features], last[fired.features])  # rounding may step over a group's edge
        n = self.n_features
        return KnownDraw(fired_of_keys([fired.rows * n + members[chosen]], n), n_samples, n)
