"""One site of a language model that is read at several, for the metrics that splice an SAE into it."""

from collections.abc import Collection, Iterator, Mapping

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


def sites_read(names: Collection[str], source: ActivationSource, sites: Mapping[str, str] | None) -> dict[str, str]:
    """The site that each named SAE reads; of a source with several sites, each must be told its own.

    A name that is not there, an unknown site and a missing one are ValueErrors.
    """
    given = dict(sites or {})
    strangers = [name for name in given if name not in names]
    if strangers:
        raise ValueError(f"sites: one is given for {strangers}, but the SAEs are {', '.join(names)}.")
    for name in names:
        if name not in given and len(source.sites) > 1:
            raise ValueError(
                f"sites: the source reads {', '.join(source.sites)}, but no site is given for SAE {name!r}. "
                f"Pass sites={{{name!r}: ...}}."
            )
        source.columns(given.setdefault(name, next(iter(source.sites))))
    return given
