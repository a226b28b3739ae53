"""The direct effect of a latent on the next token: its decoder row through the last norm and the unembedding.

An approximation: everything between the hook and the last norm is skipped, and the norm's scale s is held fixed at its
mean over held-out tokens. One unit of the latent then adds d W / s to the logits, with d its decoder row in raw units
and W the unembedding behind the norm's centring and gain, less the mean over the vocabulary. `effect_agreement` says
how close that comes to removing the latent.
"""

from collections.abc import Iterator, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.model_site import ModelSite, model_site
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.activations.unembedding import Unembedding, unembedding_of, writes_residual
from sae_toolkit.analysis.latent_record import Neighbour
from sae_toolkit.analysis.needed_model import model_behind
from sae_toolkit.saes.base import AbstractDictionary

LOGITS_AT_ONCE = 2**22
"""Logit effects in memory at a time (float32: 16 MiB): latents times vocabulary."""
SCALE_ROWS = 16
"""Held-out rows behind the mean scale of the last norm."""
APPROXIMATION = (
    "Direct effect of one unit of activation on the next token's logit, less the mean over the vocabulary: decoder row "
    "through the last norm (its scale held at the mean over held-out tokens) and the unembedding. What later layers "
    "make of the latent is not in it."
)
"""What a reader of promoted and suppressed tokens must know."""

TopTokens = tuple[Neighbour, ...]


def has_direct_logit_effects(source: ActivationSource) -> bool:
    """Whether a source runs a language model, and reads it where what is written goes into the residual stream."""
    site = model_site(source)
    return site is not None and writes_residual(site.model, site.written)


def direct_logit_effects(
    sae: AbstractDictionary, source: ActivationSource, latents: Sequence[int], n_top: int = 10
) -> dict[int, tuple[TopTokens, TopTokens]]:
    """Of each latent the tokens it promotes and those it suppresses most, strongest first.

    `value`: logits per unit of activation, less the mean over the vocabulary. Ids that the tokenizer gives no text (a
    vocabulary padded to a round number) are left out.
    """
    site = writing_site(model_behind(source, sae, "direct_logit_effects"), "direct_logit_effects")
    texts = source.token_texts
    if texts is None:
        raise ValueError("direct_logit_effects: the tokenizer gives its ids no text, so no token can be named.")
    if not 1 <= n_top <= len(texts):
        raise ValueError(f"direct_logit_effects: n_top={n_top} asked, but there are {len(texts)} tokens.")

    def named(values: Float[Tensor, " n_top"], ids: Int[Tensor, " n_top"]) -> TopTokens:
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        return tuple(Neighbour(index=i, label=texts[i], value=value) for value, i in pairs)

    unembedding = unembedding_of(site.model)
    scale = mean_inverse_scale(site, unembedding)
    found: dict[int, tuple[TopTokens, TopTokens]] = {}
    for chunk, logits in effects_in_chunks(sae, unembedding, latents, d_vocab=site.model.d_vocab):
        known = logits[:, : len(texts)] * scale
        most, least = known.topk(n_top), known.topk(n_top, largest=False)
        for row, latent in enumerate(chunk):
            promoted, suppressed = (named(top.values[row], top.indices[row]) for top in (most, least))
            found[latent] = (promoted, suppressed)
    return found


def writing_site(site: ModelSite, asked_by: str) -> ModelSite:
    """The same, or a ValueError where decoder rows are no vectors of the residual stream."""
    if not writes_residual(site.model, site.written):
        raise ValueError(
            f"{asked_by}: what is written at {site.written} of {site.model.name} does not go into the residual stream "
            "as it is, so it has no direct effect on the logits. Remove latents instead (`ablation_effects`)."
        )
    return site


def effects_in_chunks(
    sae: AbstractDictionary, unembedding: Unembedding, latents: Sequence[int], *, d_vocab: int
) -> Iterator[tuple[list[int], Float[Tensor, "chunk d_vocab"]]]:
    """Direct effects at scale 1, few latents at a time, on the CPU; a latent that is not there is a ValueError."""
    strangers = [latent for latent in latents if not 0 <= latent < sae.d_sae]
    if strangers:
        raise ValueError(f"direct effects of latents {strangers} asked, but the SAE has 0 to {sae.d_sae - 1}.")
    directions = sae.decoder_directions().detach()
    step = max(1, LOGITS_AT_ONCE // d_vocab)
    for start in range(0, len(latents), step):
        chunk = list(latents[start : start + step])
        yield chunk, unembedding.direct(directions[chunk]).cpu()


def mean_inverse_scale(site: ModelSite, unembedding: Unembedding) -> float:
    """Mean of 1 / s over the tokens of some held-out rows, special ones left out."""
    last = f"blocks.{site.model.n_layers - 1}.hook_resid_post"
    total, n_tokens = 0.0, 0
    for row in site.source.spread_rows(SCALE_ROWS).tokens[:, None]:
        kept = site.source.kept_tokens(row)
        residual = site.model.capture(row, [last])[last][kept.to(site.model.device)]
        total += float(unembedding.inverse_scale(residual).double().sum())
        n_tokens += int(kept.sum())
    return total / max(n_tokens, 1)
