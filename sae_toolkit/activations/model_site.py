"""Where a source reads a language model: what the tools that edit or differentiate the model need to know."""

from typing import NamedTuple

from sae_toolkit.activations.known_latents import KnownLatentsSource
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.activations.splicing_site import SplicingSiteSource
from sae_toolkit.activations.transformer import TransformerSource


class ModelSite(NamedTuple):
    """One place in a language model that is read with a text."""

    source: TransformerSource
    """It knows the text, and which of its tokens count."""
    hook: str
    target: str | None = None
    """The hook that a transcoder predicts from what it reads at the other."""

    @property
    def written(self) -> str:
        """The hook at which what latents write arrives."""
        return self.hook if self.target is None else self.target

    @property
    def model(self) -> LanguageModel:
        return self.source.model


def model_site(source: ActivationSource) -> ModelSite | None:
    """Model and hook behind a source of one site; None where no model is at hand (arrays, a cache, a known world),
    or several hooks are read side by side.

    A source that reads several sites is a ValueError: `site_of(source, hook)` shows one of them.
    """
    if isinstance(source, SplicingSiteSource):
        inner = transformer_source(source.model_source)
        if inner is None or not isinstance(source.site, str):
            return None
        return ModelSite(inner, source.site, source.target)
    inner = transformer_source(source)
    return None if inner is None else ModelSite(inner, inner.only_site())


def transformer_source(source: ActivationSource) -> TransformerSource | None:
    """The source that runs the model, where there is one."""
    if isinstance(source, KnownLatentsSource):
        return source.transformer
    return source if isinstance(source, TransformerSource) else None
