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
from sae_toolkit.activations.unembedding import Unembedding, unembedding_of
from sae_toolkit.analysis.logits import effects_in_chunks, mean_inverse_scale, writing_site
from sae_toolkit.analysis.needed_model import needed_model
from sae_toolkit.analysis.steering import chosen_latents
from sae_toolkit.metrics.evaluate import inference_mode_of
from sae_toolkit.metrics.rank_correlation import spearman
from sae_toolkit.saes.base import AbstractDictionary


class EffectAgreement(NamedTuple):
    """Direct effect d of one latent against its true effect t, both over the vocabulary; NaN where it never fires."""

    cosine: float
    """With all that removing the latent does. Even at the last hook it is below 1: without the latent the last norm
    divides by another scale, which stretches all logits (a change of temperature)."""
    frozen_cosine: float
    """With the last norm's scale held as it was: 1 where the latent acts through the unembedding alone, about 0 where
    later layers make something else of it."""
    rank_correlation: float
    """Spearman's of d with all that removing the latent does."""
    size: float
    """(t . d) / (d . d): how many times as large the true effect is, along the direct one."""
    n_tokens: int
    """Tokens at which it fires."""


class TrueEffects(NamedTuple):
    """Of removing each latent at all its tokens at once, summed over the tokens at which it fires."""

    logits: Float64[Tensor, "n_latents d_vocab"]
    """Change of the logits, less its mean over the vocabulary."""
    scaled_residual: Float64[Tensor, "n_latents d_model"]
    """Change of the last residual stream, divided token by token by the scale of the last norm."""
    activation: Float64[Tensor, " n_latents"]
    n_tokens: Float64[Tensor, " n_latents"]


def effect_agreement(
    sae: AbstractDictionary, source: ActivationSource, latents: Sequence[int], *, n_rows: int = 16
) -> dict[int, EffectAgreement]:
    """Over held-out rows. The true effect, per unit of activation: the sum over the tokens at which the latent fires of
    the logits less those without it (removed at all its tokens at once), divided by the sum of its activations.

    Two forward passes per latent and chunk of rows; float64 sums of `[latents d_vocab]` are kept: ask for few latents.
    """
    site = writing_site(needed_model(source, sae, "effect_agreement"), "effect_agreement")
    unembedding = unembedding_of(site.model)
    true = true_effects(sae, site, unembedding, latents, n_rows)
    scale = mean_inverse_scale(site, unembedding)
    found: dict[int, EffectAgreement] = {}
    place = 0
    for chunk, effects in effects_in_chunks(sae, unembedding, latents, d_vocab=site.model.d_vocab):
        for latent, direct in zip(chunk, (effects * scale).double(), strict=True):
            residual = true.scaled_residual[[place]].float().to(site.model.device)
            frozen = unembedding.direct(residual)[0].cpu().double()
            found[latent] = compared(direct, true, frozen, place)
            place += 1
    return found


def compared(
    direct: Float64[Tensor, " d_vocab"], true: TrueEffects, frozen: Float64[Tensor, " d_vocab"], place: int
) -> EffectAgreement:
    """One latent's direct effect with both true ones."""
    if true.n_tokens[place] == 0:
        return EffectAgreement(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    whole = true.logits[place]
    per_unit = float(whole @ direct) / float(true.activation[place])
    return EffectAgreement(
        cosine=cosine(whole, direct),
        frozen_cosine=cosine(frozen, direct),
        rank_correlation=spearman(np.stack([whole.numpy(), direct.numpy()], axis=1)),
        size=per_unit / max(float(direct @ direct), 1e-30),
        n_tokens=int(true.n_tokens[place]),
    )


def cosine(a: Float64[Tensor, " n"], b: Float64[Tensor, " n"]) -> float:
    """Of the angle between two vectors; 0 where one is 0."""
    return float(a @ b) / max(float(a.norm() * b.norm()), 1e-30)


@torch.no_grad()
def true_effects(
    sae: AbstractDictionary, site: ModelSite, unembedding: Unembedding, latents: Sequence[int], n_rows: int
) -> TrueEffects:
    """Removes one latent after another; the SAE's error stays."""
    model, directions = site.model, sae.decoder_directions()
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    chosen = torch.tensor(latents, dtype=torch.long, device=directions.device)
    rows = site.source.spread_rows(n_rows).tokens
    sums = torch.zeros(len(latents), model.d_vocab, dtype=torch.float64)
    residuals = torch.zeros(len(latents), model.width(last), dtype=torch.float64)
    strengths, counts = (torch.zeros(len(latents), dtype=torch.float64) for _ in range(2))
    for tokens in torch.split(rows, max(1, MAX_LOGITS // (rows.shape[1] * model.d_vocab))):
        kept = site.source.kept_tokens(tokens)
        inside = kept.to(model.device)
        seen = {hook: x.float()[inside] for hook, x in model.capture(tokens, list({site.hook, last})).items()}
        with inference_mode_of([sae]):
            acts = chosen_latents(sae.forward(seen[site.hook].to(directions)).latent_acts, chosen).to(seen[last])
        clean, scale = model.logits(tokens).float()[inside], unembedding.inverse_scale(seen[last])
        for i in range(len(latents)):
            fires = acts[:, i] != 0
            if not fires.any():
                continue
            removed = acts[:, [i]] * directions[chosen[i]].to(acts)
            with model.replacing({site.hook: at_kept_tokens(lambda x, removed=removed: x - removed, kept)}):  # type: ignore[misc]
                changed = (clean - model.logits(tokens).float()[inside])[fires]
                moved = (seen[last] - model.capture(tokens, [last])[last].float()[inside])[fires]
            change = changed.double().sum(0).cpu()
            sums[i] += change - change.mean()
            residuals[i] += (moved * scale[fires, None]).double().sum(0).cpu()
            strengths[i] += float(acts[:, i].double().sum())
            counts[i] += int(fires.sum())
    return TrueEffects(sums, residuals, strengths, counts)
