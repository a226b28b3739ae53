"""How far a language model's predictions move when other activations stand at one hook, and which way leads back."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.source import WholeRows
from sae_toolkit.activations.splicing import log_probabilities

MAX_LOGITS = 2**24
"""Logits in memory at a time: 64 MB each for the clean ones, the spliced ones, and a few of their size on the way."""


class Divergence(NamedTuple):
    """Of predictions after some tokens, in nats."""

    kl: Float[Tensor, ""]
    """Mean KL(clean || spliced) over the kept tokens that have a next one in their row."""
    gradient: Float[Tensor, "n d"]
    """Of that mean, to what was spliced in."""


def spliced_divergence(
    model: LanguageModel, rows: WholeRows, hook: str, activations: Float[Tensor, "n d"]
) -> Divergence:
    """The model reads the rows as they are, and again with these vectors at the kept tokens; some rows at a time.

    Neither the model nor the vectors get a gradient of their own.
    """
    n_counted = int(rows.kept[:, :-1].sum())
    n_rows = max(1, MAX_LOGITS // (rows.tokens.shape[1] * model.d_vocab))
    total = activations.new_zeros(())
    gradients, first = [], 0
    for tokens, kept in zip(torch.split(rows.tokens, n_rows), torch.split(rows.kept, n_rows), strict=True):
        vectors = activations.detach()[first : first + int(kept.sum())]
        first += len(vectors)
        kl, gradient = summed_divergence(model, tokens, kept, hook, vectors)
        total += kl.to(total)
        gradients.append(gradient / max(1, n_counted))
    return Divergence(total / max(1, n_counted), torch.cat(gradients))


def summed_divergence(
    model: LanguageModel, tokens: Tensor, kept: Tensor, hook: str, vectors: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n d"]]:
    """The sum over tokens of KL(clean || spliced), and its gradient to the vectors."""
    counted = kept[:, :-1]
    clean = log_probabilities(model.logits(tokens), counted)
    given = vectors.clone().requires_grad_()

    def replace(activations: Float[Tensor, "rows context d"]) -> Float[Tensor, "rows context d"]:
        replaced = activations.clone()
        replaced[kept.to(activations.device)] = given.to(activations)
        return replaced

    with torch.enable_grad():
        spliced = log_probabilities(model.differentiable_logits(tokens, {hook: replace}), counted)
        kl = (clean.exp() * (clean - spliced)).sum()
        (gradient,) = torch.autograd.grad(kl, given)
    return kl.detach(), gradient
