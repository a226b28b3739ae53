"""Where something stands in a source: the site that it reads, or several, and the one that it predicts."""

from collections.abc import Mapping
from typing import NamedTuple

from sae_toolkit.activations.source import ActivationSource, Site
from sae_toolkit.activations.splicing_site import site_of


class Place(NamedTuple):
    """What a dictionary reads, and what it predicts where that is something else."""

    site: Site
    """One site, or several side by side for a crosscoder."""
    target: str | None = None
    """What a transcoder predicts."""

    def seen(self, source: ActivationSource) -> ActivationSource:
        """The source as it looks from here."""
        return site_of(source, self.site, target=self.target)

    def __str__(self) -> str:
        read = self.site if isinstance(self.site, str) else " + ".join(self.site)
        return read if self.target is None else f"{read} to {self.target}"


def sites_and_targets(places: Mapping[str, Place]) -> tuple[dict[str, Site], dict[str, str]]:
    """What `train` and others are told of several named dictionaries."""
    targets = {name: place.target for name, place in places.items() if place.target is not None}
    return {name: place.site for name, place in places.items()}, targets
