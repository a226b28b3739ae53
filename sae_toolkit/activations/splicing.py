"""Next-token losses of a language model while something else stands in for its activations at one hook."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.hooks import parse_hook
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.source import Replacement, TokenLosses
from sae_toolkit.activations.text import TokenRows


@torch.no_grad()
def spliced_losses(
    model: LanguageModel,
    rows: TokenRows,
    kept: Bool[Tensor, "rows context"],
    replacements: Mapping[str, Replacement],
    *,
    read: str,
    written: str,
) -> dict[str, TokenLosses]:
    """Losses of the tokens after the kept ones: "clean", then one entry per replacement, over the same tokens.

    A replacement sees the kept tokens' activations `[n d]` at one hook and sets them at another, which may be the same.
    The last token of a row has no next one and is replaced, but not counted.
    """
    targets = rows.tokens[:, 1:]
    counted = kept[:, :-1]
    documents = rows.document_ids[:, :-1][counted]
    clean = log_probabilities(model.logits(rows.tokens), counted)
    wanted = targets[counted].to(clean.device)
    losses = {"clean": token_losses(clean, clean, wanted, documents)}
    for name, replacement in replacements.items():
        spliced = model.logits(rows.tokens, reading_and_writing(replacement, kept, read=read, written=written))
        losses[name] = token_losses(clean, log_probabilities(spliced, counted), wanted, documents)
    return losses


def at_kept_tokens(replacement: Replacement, kept: Bool[Tensor, "rows context"]) -> Replacement:
    """The replacement confined to the kept tokens of a whole `[rows context d]` tensor."""

    def replace(activations: Float[Tensor, "rows context d"]) -> Float[Tensor, "rows context d"]:
        return with_kept(activations, replacement(activations[kept.to(activations.device)]), kept)

    return replace


def reading_and_writing(
    replacement: Replacement, kept: Bool[Tensor, "rows context"], *, read: str, written: str
) -> dict[str, Replacement]:
    """The replacement of the kept tokens at one hook by a function of those at another, by the hooks it concerns."""
    if read == written:
        return {written: at_kept_tokens(replacement, kept)}
    if parse_hook(read).depth >= parse_hook(written).depth:
        raise ValueError(
            f"spliced losses: {read} is to be read and {written} replaced, but the model computes {read} later. "
            "What is replaced must come after what is read."
        )
    seen: list[Tensor] = []

    def remember(activations: Float[Tensor, "rows context d"]) -> Float[Tensor, "rows context d"]:
        seen.append(activations)
        return activations

    def replace(activations: Float[Tensor, "rows context d"]) -> Float[Tensor, "rows context d"]:
        given = seen.pop()
        return with_kept(activations, replacement(given[kept.to(given.device)]), kept)

    return {read: remember, written: replace}


def with_kept(
    activations: Float[Tensor, "rows context d"], new: Float[Tensor, "n d"], kept: Bool[Tensor, "rows context"]
) -> Float[Tensor, "rows context d"]:
    """A copy with other values at the kept tokens."""
    replaced = activations.clone()
    replaced[kept.to(activations.device)] = new.to(activations)
    return replaced


def log_probabilities(
    logits: Float[Tensor, "rows context d_vocab"], counted: Bool[Tensor, "rows context-1"]
) -> Float[Tensor, "n_tokens d_vocab"]:
    """Of the next token after each counted one."""
    return logits[:, :-1][counted.to(logits.device)].float().log_softmax(dim=-1)


def token_losses(
    clean: Float[Tensor, "n_tokens d_vocab"],
    spliced: Float[Tensor, "n_tokens d_vocab"],
    targets: Int[Tensor, " n_tokens"],
    document_ids: Int[Tensor, " n_tokens"],
) -> TokenLosses:
    """Negative log-likelihood of the targets, and KL(clean || spliced), on the CPU."""
    nll = -spliced.gather(1, targets[:, None])[:, 0]
    kl = (clean.exp() * (clean - spliced)).sum(dim=1)
    return TokenLosses(nll.cpu(), kl.cpu(), document_ids)
