"""One site of a language model that is read at several, for the metrics that splice an SAE into it."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from sae_toolkit.activations.sites import SiteSource
from sae_toolkit.activations.source import ActivationSource, Replacement, Site, SplicingSource, TokenLosses


class SplicingSiteSource(SiteSource, SplicingSource):
    """One site of a language model: a replacement acts there, or, with a target, reads there and acts at the target."""

    def __init__(self, whole: SplicingSource, site: Site, *, target: str | None = None) -> None:
        super().__init__(whole, site, target=target)
        self.model_source = whole

    @cached_property
    def written(self) -> SplicingSource:
        return self if self.target is None else SplicingSiteSource(self.model_source, self.target)

    def losses_with(
        self,
        replacements: Mapping[str, Replacement],
        *,
        n_tokens: int,
        site: str | None = None,
        target: str | None = None,
    ) -> Iterator[dict[str, TokenLosses]]:
        here = site or self.site
        if not isinstance(here, str):
            raise ValueError(
                f"losses_with: {here} are read together, but something can be spliced in at one site only."
            )
        return self.model_source.losses_with(replacements, n_tokens=n_tokens, site=here, target=target or self.target)


def site_of(source: ActivationSource, site: Site | None, *, target: str | None = None) -> ActivationSource:
    """The source seen at one site, with another as what is to be predicted; itself where that is all there is."""
    named = [site] if isinstance(site, str) else list(site or ())
    if target is None and (site is None or list(source.sites) == named):
        return source
    seen = next(iter(source.sites)) if site is None else site
    if isinstance(source, SplicingSource):
        return SplicingSiteSource(source, seen, target=target)
    return SiteSource(source, seen, target=target)
