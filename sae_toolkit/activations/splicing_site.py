"""One site of a language model that is read at several, for the metrics that splice an SAE into it."""

from collections.abc import Iterator, Mapping

from sae_toolkit.activations.sites import SiteSource
from sae_toolkit.activations.source import ActivationSource, Replacement, SplicingSource, TokenLosses


class SplicingSiteSource(SiteSource, SplicingSource):
    """One site of a language model: a replacement acts there and nowhere else."""

    def __init__(self, whole: SplicingSource, site: str) -> None:
        super().__init__(whole, site)
        self.model_source = whole

    def losses_with(
        self, replacements: Mapping[str, Replacement], *, n_tokens: int, site: str | None = None
    ) -> Iterator[dict[str, TokenLosses]]:
        return self.model_source.losses_with(replacements, n_tokens=n_tokens, site=site or self.site)


def site_of(source: ActivationSource, site: str | None) -> ActivationSource:
    """The source seen at one site; itself where no site is named or there is no other."""
    if site is None or list(source.sites) == [site]:
        return source
    return SplicingSiteSource(source, site) if isinstance(source, SplicingSource) else SiteSource(source, site)
