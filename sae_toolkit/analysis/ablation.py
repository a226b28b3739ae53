"""What a prediction truly loses when a latent is removed: the check of every approximation of it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.current_reading import Reading
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.activations.transformer import MAX_LOGITS
from sae_toolkit.analysis.attribution import Attribution, gradient_attribution
from sae_toolkit.analysis.needed_model import needed_model
from sae_toolkit.analysis.predictions import Prediction, check_prediction
from sae_toolkit.analysis.steering import Where, chosen_latents
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.evaluate import inference_mode_of
from sae_toolkit.metrics.rank_correlation import spearman
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary
from sae_toolkit.seeding import generator_for

STRONG = 0.1
"""An effect counts as strong from this share of the largest one of its row on."""
LATENTS_PER_ROW = 256
"""Of the latents that fire in a row at most so many, drawn at random, are removed one by one."""


@torch.no_grad()
def ablation_effects(
    sae: AbstractDictionary,
    model: LanguageModel,
    hook: str,
    row: Int[Tensor, " context"],
    latents: Sequence[int],
    prediction: Prediction,
    *,
    where: Where | None = None,
) -> Float[Tensor, " n_latents"]:
    """M - M(without the latent at any of its tokens), latent by latent; x' = x - z d, the SAE's error stays.

    Compare with `Attribution.by_latent` of the same row. As many latents share a forward pass, each in a copy of the
    row of its own, as keep the logits below 128 MB.
    """
    tokens = row.cpu()[None]
    x = model.capture(tokens, [hook])[hook].float()
    kept = (Where() if where is None else where).holds(Reading(tokens, 0), model)[0].to(x.device)
    directions = sae.decoder_directions()
    chosen = torch.tensor(latents, dtype=torch.long, device=directions.device)
    with inference_mode_of([sae]):
        acts = chosen_latents(sae.forward(x[0].to(directions)).latent_acts, chosen).to(x) * kept[:, None]

    def predicted(removed: Float[Tensor, "copies context d_in"]) -> Float[Tensor, " copies"]:
        copies = tokens.expand(len(removed), -1)
        values = prediction(model.logits(copies, {hook: lambda given: given - removed}).float(), copies)
        return check_prediction(values, len(copies)).cpu()

    whole = predicted(torch.zeros_like(x))
    effects = [torch.zeros(0)]
    step = max(1, MAX_LOGITS // (len(row) * model.d_vocab))
    for start in range(0, len(latents), step):
        part = slice(start, start + step)
        effects.append(whole - predicted(acts[:, part].T[:, :, None] * directions[chosen[part]].to(x)[:, None, :]))
    return torch.cat(effects)


def attribution_agreement(
    sae: AbstractDictionary,
    source: ActivationSource,
    prediction: Callable[[Int[Tensor, " context"]], Prediction],
    *,
    n_rows: int = 16,
    attribute: Callable[..., Attribution] = gradient_attribution,
    seed: int = 0,
) -> dict[str, Score]:
    """How well attributions foretell ablations, on held-out rows of a source that runs a language model.

    `prediction` makes what is asked of each row from its tokens. Both are taken of every latent that fires in a row (at
    most 256, drawn at random). `attribution_sign_agreement`: share of strong effects (at least a tenth of the largest
    of the row) whose sign is right; 1/2 is chance. `attribution_rank_correlation`: Spearman's over the latents of a
    row, mean over rows; 0 is chance.
    """
    site = needed_model(source, sae, "attribution_agreement")
    generator = generator_for(seed, "ablated latents")
    signs: list[Tensor] = []
    ranks: list[float] = []
    for row in site.source.spread_rows(n_rows).tokens:
        asked = prediction(row)
        found = attribute(sae, site.model, site.hook, row[None], asked).by_latent()
        drawn = torch.randperm(len(found.indices), generator=generator)[:LATENTS_PER_ROW]
        latents, attributed = found.indices[drawn], found.values[drawn]
        removed = ablation_effects(sae, site.model, site.hook, row, latents.tolist(), asked).double()
        strong = removed.abs() >= STRONG * removed.abs().max().clamp(min=1e-30)
        signs.append((attributed.sign() == removed.sign())[strong].double())
        ranks.append(spearman(np.stack([attributed.numpy(), removed.numpy()], axis=1)))
    return {
        "attribution_sign_agreement": mean_score(torch.cat(signs), id="attribution_sign_agreement/v1"),
        "attribution_rank_correlation": mean_score(
            torch.tensor(ranks, dtype=torch.float64), id="attribution_rank_correlation/v1"
        ),
    }
