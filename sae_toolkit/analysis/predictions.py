"""What is asked of a language model's logits: one number per row, to be attributed to latents or changed by them."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Prediction = Callable[[Tensor, Tensor], Tensor]
"""Logits `[rows context d_vocab]` and tokens `[rows context]` in, one number per row out, differentiable in the logits.

Each row's number must depend on that row alone.
"""


def token_logit(token: int, position: int = -1) -> Prediction:
    """The logit of a next token after a position, less the mean logit (a shift of all logits predicts nothing)."""

    def predict(
        logits: Float[Tensor, "rows context d_vocab"], tokens: Int[Tensor, "rows context"]
    ) -> Float[Tensor, " rows"]:
        del tokens
        return logits[:, position, token] - logits[:, position].mean(-1)

    return predict


def logit_difference(token: int, other: int, position: int = -1) -> Prediction:
    """The logit of a next token less that of another, after a position: the log of how many times likelier it is."""

    def predict(
        logits: Float[Tensor, "rows context d_vocab"], tokens: Int[Tensor, "rows context"]
    ) -> Float[Tensor, " rows"]:
        del tokens
        return logits[:, position, token] - logits[:, position, other]

    return predict


def next_token_loss(
    logits: Float[Tensor, "rows context d_vocab"], tokens: Int[Tensor, "rows context"]
) -> Float[Tensor, " rows"]:
    """Mean negative log-likelihood of every token after the first, in nats."""
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:].to(logits.device), reduction="none")
    return losses.mean(dim=1)


def surprise_at(position: int) -> Prediction:
    """Negative log-likelihood, in nats, of the token that follows a position."""

    def predict(
        logits: Float[Tensor, "rows context d_vocab"], tokens: Int[Tensor, "rows context"]
    ) -> Float[Tensor, " rows"]:
        following = tokens[:, position + 1].to(logits.device)
        return -logits[:, position].log_softmax(-1).gather(1, following[:, None])[:, 0]

    if position < 0:
        raise ValueError(f"surprise_at: position={position} given. Count from the start of the row, from 0.")
    return predict


def check_prediction(values: Tensor, n_rows: int) -> Float[Tensor, " rows"]:
    """Refuses anything but one finite number per row."""
    if values.shape != (n_rows,):
        raise ValueError(f"Prediction: it returned {tuple(values.shape)} for {n_rows} rows. Return one number per row.")
    if not torch.isfinite(values.detach()).all():
        raise ValueError("Prediction: it returned NaN or infinity. Ask for something the model's logits define.")
    return values
