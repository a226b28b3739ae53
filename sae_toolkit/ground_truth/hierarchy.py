"""Features that fire only with their parent: forests, with optional exclusion among siblings and scaling by parent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.ground_truth.firing import FiringDraw
from sae_toolkit.ground_truth.magnitudes import Magnitudes


class Entries(NamedTuple):
    """Nonzero coefficients: sample, feature, value."""

    rows: Int[Tensor, " nnz"]
    features: Int[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]

    def where(self, kept: Bool[Tensor, " nnz"]) -> "Entries":
        """Only the entries marked True."""
        return Entries(*(column[kept] for column in self))


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """A forest over features. A child whose parent is silent is silent; its own rate is the rate *given* the parent.

    Features without parent and without children are left as they are.
    """

    parents: Int[Tensor, " n_features"]
    """Index of each feature's parent, -1 where it has none."""
    exclusive_siblings: bool = False
    """Of the active children of one parent only one, chosen uniformly, survives."""
    reference_magnitudes: Float[Tensor, " n_features"] | None = None
    """If given, a child's coefficient is multiplied by coefficient of its parent / reference of its parent."""

    @classmethod
    def from_children(
        cls,
        children: Mapping[int, Sequence[int]],
        *,
        n_features: int,
        exclusive_siblings: bool = False,
        reference_magnitudes: Float[Tensor, " n_features"] | None = None,
    ) -> "Hierarchy":
        """From a literal such as `{0: [1, 2], 1: [3]}`: parent to children."""
        parents = torch.full((n_features,), -1, dtype=torch.int64)
        for parent, members in children.items():
            if not members:
                raise ValueError(f"Hierarchy: parent {parent} is given no children. Name some, or leave it out.")
            for index in (parent, *members):
                if not 0 <= index < n_features:
                    raise ValueError(f"Hierarchy: feature {index} named, but there are features 0 to {n_features - 1}.")
            for child in members:
                if parents[child] >= 0:
                    raise ValueError(
                        f"Hierarchy: feature {child} is given two parents, {int(parents[child])} and {parent} (or one "
                        "twice). A feature has at most one."
                    )
                parents[child] = parent
        return cls(parents=parents, exclusive_siblings=exclusive_siblings, reference_magnitudes=reference_magnitudes)

    def pairs(self) -> Int[Tensor, "n_pairs 2"]:
        """Every (parent, child), by child."""
        children = (self.parents >= 0).nonzero()[:, 0]
        return torch.stack([self.parents[children], children], dim=1)

    def __post_init__(self) -> None:
        n = len(self.parents)
        if not (self.parents >= 0).any():
            raise ValueError(
                "Hierarchy: no feature has a parent. Give at least one, or build the world without a hierarchy."
            )
        if int(self.parents.min()) < -1 or int(self.parents.max()) >= n:
            raise ValueError(f"Hierarchy: parents must be -1 (none) or a feature from 0 to {n - 1}.")
        cyclic = (self.depths < 0).nonzero()[:, 0].tolist()
        if cyclic:
            raise ValueError(f"Hierarchy: features {cyclic[:8]} are their own ancestors or hang from such a cycle.")
        if self.reference_magnitudes is not None:
            references = self.reference_magnitudes
            if len(references) != n or not (references.isfinite() & (references > 0)).all():
                raise ValueError(
                    f"Hierarchy: reference_magnitudes must be {n} finite numbers above 0, one per feature."
                )

    @property
    def n_features(self) -> int:
        return len(self.parents)

    @cached_property
    def depths(self) -> Int[Tensor, " n_features"]:
        """Number of ancestors; -1 for a feature that no root reaches (a cycle)."""
        depths = torch.full_like(self.parents, -1)
        frontier, depth = self.parents == -1, 0
        while frontier.any():
            depths[frontier] = depth
            frontier = (self.parents >= 0) & frontier[self.parents.clamp(min=0)]
            depth += 1
        return depths

    @cached_property
    def families(self) -> tuple[Int[Tensor, " n_children"], Int[Tensor, " n_features"], Int[Tensor, " n_features"]]:
        """All children in the order of their parents; where each parent's children start; how many they are."""
        order = self.parents.argsort(stable=True)
        children = order[self.parents[order] >= 0]
        sizes = torch.bincount(self.parents[children], minlength=self.n_features)
        return children, sizes.cumsum(0) - sizes, sizes

    def grow(self, draw: FiringDraw, magnitudes: Magnitudes, generator: torch.Generator) -> Entries:
        """Coefficients level by level from the roots; children are looked at only where their parent is active."""
        roots = (self.parents < 0).nonzero()[:, 0]
        level = with_magnitudes(*draw.among(roots), magnitudes, generator)
        levels = [level]
        while len(level.rows) > 0:
            level = self.children_of(level, draw, magnitudes, generator)
            levels.append(level)
        return Entries(*(torch.cat(columns) for columns in zip(*levels, strict=True)))

    def children_of(
        self, level: Entries, draw: FiringDraw, magnitudes: Magnitudes, generator: torch.Generator
    ) -> Entries:
        """The active children of active entries."""
        children, starts, sizes = self.families
        families = sizes[level.features]
        owners = torch.arange(len(level.rows)).repeat_interleave(families)
        within = torch.arange(len(owners)) - (families.cumsum(0) - families)[owners]
        features = children[starts[level.features[owners]] + within]
        fires = draw.at(level.rows[owners], features)
        owners, features = owners[fires], features[fires]
        values = magnitudes.sample(features, generator)
        if self.reference_magnitudes is not None:
            values = values * (level.values[owners] / self.reference_magnitudes[level.features[owners]])
        owners, features, values = (column[values != 0] for column in (owners, features, values))
        if self.exclusive_siblings:
            survivors = one_per_group(owners, generator)
            owners, features, values = owners[survivors], features[survivors], values[survivors]
        return Entries(level.rows[owners], features, values)

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": "Hierarchy",
            "n_children": int((self.parents >= 0).sum()),
            "n_parents": len(torch.unique(self.parents[self.parents >= 0])),
            "max_depth": int(self.depths.max()),
            "exclusive_siblings": self.exclusive_siblings,
            "scaled_by_parent": self.reference_magnitudes is not None,
        }


def with_magnitudes(
    rows: Int[Tensor, " nnz"], features: Int[Tensor, " nnz"], magnitudes: Magnitudes, generator: torch.Generator
) -> Entries:
    """Entries of the cells that fired; those whose magnitude is zero did not."""
    values = magnitudes.sample(features, generator)
    return Entries(rows, features, values).where(values != 0)


def one_per_group(groups: Int[Tensor, " nnz"], generator: torch.Generator) -> Int[Tensor, " n_groups"]:
    """The place of one entry of each group, chosen uniformly among its entries."""
    uniform = torch.rand(len(groups), generator=generator, dtype=torch.float32)
    order = (groups + uniform.double()).argsort(stable=True)  # at most 1 - 2^-24 is added: groups stay apart
    ordered = groups[order]
    first = torch.ones(len(ordered), dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]
