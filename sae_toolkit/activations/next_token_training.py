"""How small language models learn here: AdamW, a warmed-up cosine, clipped gradients, documents never seen before."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sae_toolkit.ground_truth.language import Language
from sae_toolkit.ground_truth.language_documents import DOCUMENTS_AT_ONCE, draw_documents

WARM_UP = 0.03
"""Share of the steps in which the learning rate rises."""
WEIGHT_DECAY = 0.01


def minimise(
    module: nn.Module,
    loss_of_step: Callable[[int], Float[Tensor, ""]],
    *,
    n_steps: int,
    learning_rate: float,
    weight_decay: float = WEIGHT_DECAY,
) -> Float[Tensor, " n_steps"]:
    """Trains `module` in place; the loss of each step, which is called with the number of the step."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmed_cosine(step, n_steps))
    losses = torch.zeros(n_steps)
    for step in range(n_steps):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of_step(step)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
    return losses


def warmed_cosine(step: int, n_steps: int) -> float:
    """The share of the highest learning rate at a step."""
    rise = max(1, round(WARM_UP * n_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))


def document_batches(
    language: Language, documents_per_step: int, *, seed: int
) -> Iterator[Int[Tensor, "documents context"]]:
    """Documents of the known language in their order, so many at a time, without end."""
    tokens = torch.empty(0, language.config.context_length, dtype=torch.long)
    block = 0
    while True:
        while len(tokens) < documents_per_step:
            fresh = draw_documents(language, DOCUMENTS_AT_ONCE, seed=seed, first=block * DOCUMENTS_AT_ONCE).tokens
            tokens, block = torch.cat([tokens, fresh]), block + 1
        batch, tokens = tokens[:documents_per_step], tokens[documents_per_step:]
        yield batch


def losses_after(
    logits: Float[Tensor, "n context d_vocab"], tokens: Int[Tensor, "n context"]
) -> Float[Tensor, "n context-1"]:
    """-log P(token | those before it) for every token but the first."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
