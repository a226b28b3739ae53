"""SynthSAEBench-16k v2 (arXiv 2602.14687): a large hierarchical, correlated world on which architectures were compared.

Same distributions as the published world; the random numbers are ours: a sibling of it, not a copy bit for bit.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.ground_truth.correlated import LowRankFiring
from sae_toolkit.ground_truth.directions import gram_penalty_directions, unit_rows
from sae_toolkit.ground_truth.hierarchy import Hierarchy
from sae_toolkit.ground_truth.magnitudes import RectifiedNormalMagnitudes
from sae_toolkit.ground_truth.probabilities import synth_sae_bench_probabilities
from sae_toolkit.ground_truth.world import World
from sae_toolkit.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class SynthSAEBenchConfig:
    """Sizes of the world; the defaults are the published ones."""

    n_features: int = 16_384
    """Number of features; index 0 is the most frequent."""
    d_in: int = 768
    """Dimensions of an activation."""
    n_roots: int = 128
    """The first features, each the root of one tree."""
    children_per_parent: int = 4
    """Children of every feature above the lowest level, numbered breadth-first after the roots."""
    depth: int = 3
    """Levels below the roots."""
    correlation_rank: int = 25
    """Number of shared normals of the copula."""
    correlation_scale: float = 0.1
    """Standard deviation of a feature's loading on each shared normal."""
    bias_norm: float = 0.5
    """Length of the constant added to every activation, in activation units."""
    orthogonalisation_steps: int = 100
    """Adam steps on the Gram penalty of the dictionary (a minute for 16k features); 0 keeps Gaussian unit rows."""
    seed: int = 42
    """Base seed: +0 dictionary, +1 spread of magnitudes, +2 bias, +4 correlation (+3 was the hierarchy, fixed here)."""

    def __post_init__(self) -> None:
        if min(self.n_roots, self.children_per_parent, self.depth) < 1:
            raise ValueError("SynthSAEBench: n_roots, children_per_parent and depth must each be at least 1.")
        if self.n_features < self.n_in_trees:
            raise ValueError(
                f"SynthSAEBench: n_features={self.n_features} given, but {self.n_roots} trees of depth {self.depth} "
                f"hold {self.n_in_trees}. Ask for more features or smaller trees."
            )

    @property
    def n_in_trees(self) -> int:
        """Features that are roots or have a parent: 10,880 of the published world."""
        return self.n_roots * sum(int(self.children_per_parent**level) for level in range(self.depth + 1))


def synth_sae_bench(config: SynthSAEBenchConfig | None = None) -> World:
    """The published world by default; a smaller one of the same construction where a config is given."""
    config = SynthSAEBenchConfig() if config is None else config
    n = config.n_features
    parents = breadth_first_parents(config)
    rates = rates_given_parent(synth_sae_bench_probabilities(n), parents)
    means = torch.linspace(5.0, 4.0, n)
    spread = 0.5 + 0.5 * torch.randn(n, generator=generator_for(config.seed + 1, "SynthSAEBench magnitudes"))
    factors = torch.randn(
        n, config.correlation_rank, generator=generator_for(config.seed + 4, "SynthSAEBench correlation")
    )
    bias = torch.randn(1, config.d_in, generator=generator_for(config.seed + 2, "SynthSAEBench bias"))
    return World(
        directions=gram_penalty_directions(n, config.d_in, seed=config.seed, n_steps=config.orthogonalisation_steps),
        firing=LowRankFiring(probabilities=rates, factors=config.correlation_scale * factors),
        magnitudes=RectifiedNormalMagnitudes(mean=means, std=spread.abs()),
        hierarchy=Hierarchy(parents=parents, exclusive_siblings=True, reference_magnitudes=means),
        bias=config.bias_norm * unit_rows(bias)[0],
    )


def breadth_first_parents(config: SynthSAEBenchConfig) -> Int[Tensor, " n_features"]:
    """Roots first, then level by level the children of each feature in order; features outside the trees have none."""
    parents = torch.full((config.n_features,), -1, dtype=torch.int64)
    children = torch.arange(config.n_roots, config.n_in_trees)
    parents[children] = (children - config.n_roots) // config.children_per_parent
    return parents


def rates_given_parent(
    base: Float[Tensor, " n_features"], parents: Int[Tensor, " n_features"]
) -> Float[Tensor, " n_features"]:
    """min(1, p_i / p_parent (1 + sum of the other siblings' p / p_parent)), a first-order repair of the exclusion."""
    p = base.double()
    children = (parents >= 0).nonzero()[:, 0]
    own, parent = p[children], p[parents[children]]
    siblings = torch.zeros_like(p).index_add(0, parents[children], own)[parents[children]]
    rates = p.clone()
    rates[children] = (own / parent * (1 + (siblings - own) / parent)).clamp(max=1)
    return rates.float()
