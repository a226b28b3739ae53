"""How close the direct effect of a latent on the logits comes to what removing it does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from sae_toolkit.activations.model_site import ModelSite
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.activations.splicing import at_kept_tokens
from sae_toolkit.activations.transformer import MAX_LOGITS
from sae_toolkit.activations.unembedding import unembedding_of
from sae_toolkit.analysis.logits import effects_in_chunks, mean_inverse_scale, writing_site
from sae_toolkit.analysis.steering import chosen_latents
from sae_toolkit.metrics.evaluate import inference_mode_of
from sae_toolkit.metrics.rank_correlation import spearman
from sae_toolkit.saes.base import AbstractDictionary


class EffectAgreement(NamedTuple):
    """Direct effect d of one latent against its true effect t, both over the vocabulary; NaN where it never fires."""

    cosine: float
    """1 where the latent acts through the unembedding alone; about 0 where later layers make something else of it."""
    rank_correlation: float
    """Spearman's."""
    size: float
    """(t . d) / (d . d): how many times as large the true effect is, along the direct one."""
    n_tokens: int
    """Tokens at which it fires."""


def effect_agreement(
    sae: AbstractDictionary, source: ActivationSource, latents: Sequence[int], *, n_rows: int = 16
) -> dict[int, EffectAgreement]:
    """Over held-out rows. The true effect, per unit of activation: the sum over the tokens at which the latent fires of
    the logits less those without it (removed at all its tokens at once), divided by the sum of its activations.

    A forward pass per latent and chunk of rows; float64 sums of `[latents d_vocab]` are kept: ask for few latents.
    """
    site = writing_site(source, sae, "effect_agreement")
    true, n_tokens = true_effects(sae, site, latents, n_rows)
    unembedding = unembedding_of(site.model)
    scale = mean_inverse_scale(site, unembedding)
    found: dict[int, EffectAgreement] = {}
    place = 0
    for chunk, effects in effects_in_chunks(sae, unembedding, latents, d_vocab=site.model.d_vocab):
        for latent, direct in zip(chunk, (effects * scale).double(), strict=True):
            found[latent] = compared(true[place], direct, int(n_tokens[place]))
            place += 1
    return found


def compared(true: Float64[Tensor, " d_vocab"], direct: Float64[Tensor, " d_vocab"], n_tokens: int) -> EffectAgreement:
    """One latent's two effects."""
    if n_tokens == 0:
        return EffectAgreement(float("nan"), float("nan"), float("nan"), 0)
    product = float(true @ direct)
    return EffectAgreement(
        cosine=product / max(float(true.norm() * direct.norm()), 1e-30),
        rank_correlation=spearman(np.stack([true.numpy(), direct.numpy()], axis=1)),
        size=product / max(float(direct @ direct), 1e-30),
        n_tokens=n_tokens,
    )


@torch.no_grad()
def true_effects(
    sae: AbstractDictionary, site: ModelSite, latents: Sequence[int], n_rows: int
) -> tuple[Float64[Tensor, "n_latents d_vocab"], Float64[Tensor, " n_latents"]]:
    """Mean change of the logits per unit of activation, less its mean over the vocabulary; and the number of tokens."""
    model, directions = site.model, sae.decoder_directions()
    chosen = torch.tensor(latents, dtype=torch.long, device=directions.device)
    rows = site.source.held_out_rows(n_rows).tokens
    sums = torch.zeros(len(latents), model.d_vocab, dtype=torch.float64)
    strengths, counts = (torch.zeros(len(latents), dtype=torch.float64) for _ in range(2))
    for tokens in torch.split(rows, max(1, MAX_LOGITS // (rows.shape[1] * model.d_vocab))):
        kept = site.source.kept_tokens(tokens)
        x = model.capture(tokens, [site.hook])[site.hook].float()[kept.to(model.device)]
        with inference_mode_of([sae]):
            acts = chosen_latents(sae.forward(x.to(directions)).latent_acts, chosen).to(x)
        clean = model.logits(tokens).float()[kept.to(model.device)]
        for i in range(len(latents)):
            fires = acts[:, i] != 0
            if not fires.any():
                continue
            removed = acts[:, [i]] * directions[chosen[i]].to(x)
            without = model.logits(tokens, {site.hook: at_kept_tokens(lambda given, r=removed: given - r, kept)})  # type: ignore[misc]
            change = (clean - without.float()[kept.to(model.device)])[fires].double().sum(0).cpu()
            sums[i] += change - change.mean()
            strengths[i] += float(acts[:, i].double().sum())
            counts[i] += int(fires.sum())
    return sums / torch.where(strengths == 0, 1.0, strengths)[:, None], counts
