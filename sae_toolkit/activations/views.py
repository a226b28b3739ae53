"""A known world seen at several sites: at each, every feature has a direction of its own, or none.

The truth for what reads or predicts more than one site: a transcoder is to find what each feature looks like where it
is read and where it is written, a crosscoder at which sites each feature lives.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import ActivationSource, Split
from sae_toolkit.activations.superposition import SuperpositionStream
from sae_toolkit.ground_truth.world import World, WorldSample


class ViewsSource(ActivationSource):
    """Site s shows coefficients @ directions_s; the coefficients are a world's, whose own directions are not used.

    A row of zeros says that a feature does not live at a site.
    """

    def __init__(self, world: World, directions: Mapping[str, Float[Tensor, "n_features _"]]) -> None:
        if not directions:
            raise ValueError("ViewsSource: no site given; give each site a matrix [n_features d_site] of directions.")
        for site, rows in directions.items():
            if rows.ndim != 2 or len(rows) != world.n_features or not rows.isfinite().all():
                raise ValueError(
                    f"ViewsSource: directions of shape {tuple(rows.shape)} given for {site!r}, but the world has "
                    f"{world.n_features} features. Give one finite row for each."
                )
        self.world = world
        self.directions = {site: rows.float() for site, rows in directions.items()}
        self.side_by_side = torch.cat(list(self.directions.values()), dim=1)
        digest = hashlib.sha256(self.side_by_side.contiguous().numpy().data)
        self.description: dict[str, Any] = {
            "name": "ViewsSource",
            "world": world.describe(),
            "sites": dict(self.sites),
            "directions_sha256": digest.hexdigest(),
        }

    @property
    def d_in(self) -> int:
        return self.side_by_side.shape[1]

    @property
    def sites(self) -> Mapping[str, int]:
        return {site: rows.shape[1] for site, rows in self.directions.items()}

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"feature {i}" for i in range(self.world.n_features))

    def sample(self, n_samples: int, generator: torch.Generator) -> WorldSample:
        """All sites side by side, with the coefficients that they share."""
        coefficients = self.world.sample_coefficients(n_samples, generator)
        return WorldSample(coefficients.combine(self.side_by_side), coefficients)

    def stream(self, batch_size: int, *, seed: int, split: Split) -> SuperpositionStream:
        identity = {
            "source": "ViewsSource",
            "world_sha256": self.description["world"]["content_sha256"],
            "directions_sha256": self.description["directions_sha256"],
            "seed": seed,
            "split": split,
            "batch_size": batch_size,
        }
        return SuperpositionStream(self.sample, identity)

    def describe(self) -> dict[str, Any]:
        return dict(self.description)
