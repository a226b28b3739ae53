"""Text that a language model continues by itself: greedily, or drawn from a private generator."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.seeding import generator_for

Choice = Callable[[Tensor], Tensor]
"""Next-token logits `[rows d_vocab]` in, the tokens `[rows]` to go on with out."""


def most_likely(logits: Float[Tensor, "rows d_vocab"]) -> Int[Tensor, " rows"]:
    """The token of the highest logit; of equals the first."""
    return logits.argmax(dim=-1)


def sampled(*, seed: int, temperature: float = 1.0) -> Choice:
    """A draw from softmax(logits / temperature); one choice continues its own draws from call to call."""
    if not temperature > 0:
        raise ValueError(f"sampled: temperature={temperature} given, but it must be above 0. Use most_likely for 0.")
    generator = generator_for(seed, "generated text")

    def choose(logits: Float[Tensor, "rows d_vocab"]) -> Int[Tensor, " rows"]:
        cumulated = (logits.double().cpu() / temperature).softmax(dim=-1).cumsum(dim=-1)
        uniform = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64) * cumulated[:, -1:]
        return torch.searchsorted(cumulated, uniform, right=True)[:, 0]

    return choose


@torch.no_grad()
def generate(
    model: LanguageModel, tokens: Int[Tensor, "rows context"], n_new: int, *, choose: Choice = most_likely
) -> Int[Tensor, "rows context_and_new"]:
    """The rows, each continued by n_new tokens, on the CPU.

    Every step reads the whole row again (no key-value cache), so that whatever edits the model's activations acts as in
    one pass over the finished text. Nothing ends a row early: cut it at an end-of-text token if you want to.
    Logits of a whole pass are in memory: rows * tokens * d_vocab of the model's numbers.
    """
    longest = tokens.shape[1] + n_new
    if n_new < 1 or longest > model.max_context:
        raise ValueError(
            f"generate: {n_new} new tokens after {tokens.shape[1]} asked, but {model.name} reads 1 to "
            f"{model.max_context} tokens, and at least 1 must be new. Ask for fewer, or start from fewer."
        )
    tokens = tokens.cpu()
    for _ in range(n_new):
        following = choose(model.logits(tokens)[:, -1]).cpu()
        tokens = torch.cat([tokens, following[:, None]], dim=1)
    return tokens
