"""The language model behind a source, for what cannot do without it."""

from sae_toolkit.activations.model_site import ModelSite, model_site
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.saes.base import AbstractDictionary


def model_behind(source: ActivationSource, sae: AbstractDictionary, asked_by: str) -> ModelSite:
    """Model and hook, or a ValueError where the source runs none or the SAE reads vectors of another length."""
    site = model_site(source)
    if site is None:
        raise ValueError(
            f"{asked_by}: {type(source).__name__} runs no language model. Give a TransformerSource on the model and "
            "hook that the SAE was trained on (a cache of activations is not enough)."
        )
    if site.model.width(site.hook) != sae.d_in:
        raise ValueError(
            f"{asked_by}: the SAE reads vectors of d_in={sae.d_in}, but {site.hook} has "
            f"{site.model.width(site.hook)}. Give the source it was trained on."
        )
    return site


def needed_model(source: ActivationSource, sae: AbstractDictionary, asked_by: str) -> ModelSite:
    """The same for tools that edit what a dictionary reads, which is not where a transcoder's latents are written."""
    site = model_behind(source, sae, asked_by)
    if site.target is not None:
        raise ValueError(
            f"{asked_by}: the dictionary reads {site.hook} and predicts {site.target}, so its latents are no part of "
            "what it reads and cannot be removed from it. Splice its prediction in and compare losses (`ModelLoss`)."
        )
    return site
