"""Worlds that our reference results are measured on, each a function of its seed alone."""

import torch

from sae_toolkit.ground_truth.correlated import LowRankFiring
from sae_toolkit.ground_truth.directions import (
    gram_penalty_directions,
    low_coherence_directions,
    random_directions,
)
from sae_toolkit.ground_truth.exclusive import ExclusiveFiring
from sae_toolkit.ground_truth.firing import IndependentFiring
from sae_toolkit.ground_truth.hierarchy import Hierarchy
from sae_toolkit.ground_truth.magnitudes import RectifiedNormalMagnitudes
from sae_toolkit.ground_truth.probabilities import uniform_probabilities, zipf_probabilities
from sae_toolkit.ground_truth.world import World


def dataset_a(seed: int) -> World:
    """256 equally frequent independent features in 64 dimensions, L0 6, magnitudes relu(N(1, 0.25^2))."""
    return World(
        directions=gram_penalty_directions(256, 64, seed=seed, n_steps=200, lr=1e-2),
        firing=IndependentFiring(probabilities=uniform_probabilities(256, expected_l0=6.0)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(256, mean=1.0, std=0.25),
    )


def dataset_b(seed: int) -> World:
    """256 Zipfian features (rank^-0.7) in 64 dimensions, magnitudes relu(N(0.5, 0.5^2)): of 8 expected firings 16 %
    have magnitude zero, so that the true L0 is 6.73."""
    return World(
        directions=random_directions(256, 64, seed=seed),
        firing=IndependentFiring(probabilities=zipf_probabilities(256, exponent=0.7, expected_l0=8.0, maximum=0.5)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(256, mean=0.5, std=0.5),
    )


def correlated_world(seed: int, *, n_clusters: int = 32, loading: float = 0.8) -> World:
    """256 features in 64 dimensions, L0 6, in clusters whose members tend to fire together.

    The normals behind two members of a cluster correlate with loading^2 = 0.64; at rate 6/256 one member then fires
    about 12 times as often as usual when another does. Features of different clusters are independent.
    """
    clusters = torch.arange(256) % n_clusters
    return World(
        directions=gram_penalty_directions(256, 64, seed=seed, n_steps=200, lr=1e-2),
        firing=LowRankFiring(
            probabilities=uniform_probabilities(256, expected_l0=6.0),
            factors=loading * torch.nn.functional.one_hot(clusters, n_clusters).float(),
        ),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(256, mean=1.0, std=0.25),
    )


def hierarchical_world(
    seed: int, *, n_parents: int = 20, children_per_parent: int = 2, n_independent: int = 20, d_in: int = 64
) -> World:
    """Parents, then their children family by family, then independent features: for absorption studies.

    A parent fires with probability 0.03, and then one of its children with 0.6 in all (never two); an independent
    feature with 0.024. The default 80 features in 64 dimensions have L0 20 * 0.03 * 1.6 + 20 * 0.024 = 1.44.
    Directions are nearly incoherent, so that a latent which points to parent and child at once did so by training.
    """
    n_children = n_parents * children_per_parent
    n_features = n_parents + n_children + n_independent
    parents = torch.full((n_features,), -1, dtype=torch.int64)
    parents[n_parents : n_parents + n_children] = torch.arange(n_children) // children_per_parent
    families = torch.where(parents >= 0, parents, torch.arange(n_features) + n_parents)
    probabilities = torch.full((n_features,), 0.024)
    probabilities[:n_parents] = 0.03
    probabilities[n_parents : n_parents + n_children] = 0.6 / children_per_parent  # given the parent
    return World(
        directions=low_coherence_directions(n_features, d_in, seed=seed),
        firing=ExclusiveFiring(probabilities=probabilities, groups=families),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(n_features, mean=1.0, std=0.25),
        hierarchy=Hierarchy(parents=parents),
    )
