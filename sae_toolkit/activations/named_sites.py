"""Which site of a source each of several named SAEs reads, and which one a transcoder predicts."""

from collections.abc import Collection, Mapping

from sae_toolkit.activations.source import ActivationSource, Site


def sites_read(names: Collection[str], source: ActivationSource, sites: Mapping[str, Site] | None) -> dict[str, Site]:
    """The site that each named SAE reads; of a source with several sites, each must be told its own.

    A name that is not there, an unknown site and a missing one are ValueErrors.
    """
    given = dict(sites or {})
    refuse_strangers("sites", given, names)
    for name in names:
        if name not in given and len(source.sites) > 1:
            raise ValueError(
                f"sites: the source reads {', '.join(source.sites)}, but no site is given for SAE {name!r}. "
                f"Pass sites={{{name!r}: ...}}."
            )
        source.columns(given.setdefault(name, next(iter(source.sites))))
    return given


def targets_read(
    names: Collection[str], source: ActivationSource, targets: Mapping[str, Site] | None
) -> dict[str, Site]:
    """The site that each named transcoder predicts; a name that is not there and an unknown site are ValueErrors."""
    given = dict(targets or {})
    refuse_strangers("targets", given, names)
    for site in given.values():
        source.columns(site)
    return given


def refuse_strangers(what: str, given: Mapping[str, Site], names: Collection[str]) -> None:
    """A ValueError for names that belong to nothing."""
    strangers = [name for name in given if name not in names]
    if strangers:
        raise ValueError(f"{what}: one is given for {strangers}, but the SAEs are {', '.join(names)}.")
