"""Attention with weights that are written down, not learned: what circuit analysis must find in them is known."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.seeding import generator_for

Trigram = tuple[int, int, int]
"""Source, destination, output."""
FULL_ATTENTION = 30.0
"""Score of a planted pair above all others: attention of 1 to float32 rounding."""


def planted_skip_trigrams(heads: Sequence[Sequence[Trigram]], *, n_tokens: int, strength: float) -> CircuitWeights:
    """One layer whose heads write the trigrams they are given, each raising its output by `strength`.

    A destination attends fully to its source; where a head has nothing to say it attends to token 0 (which no trigram
    may use) and writes nothing. Embedding and unembedding use different halves of the residual stream: nothing goes
    directly from a token to the logits.
    """
    numbers = [number for trigrams in heads for trigram in trigrams for number in trigram]
    if not numbers or min(numbers) < 1 or max(numbers) >= n_tokens:
        raise ValueError(
            f"planted_skip_trigrams: tokens {sorted(set(numbers))} given. Use tokens 1 to {n_tokens - 1}; 0 is where "
            "heads attend that have nothing to say."
        )
    n, n_heads, root = n_tokens, len(heads), n_tokens**0.5
    W_Q, W_K, W_V = torch.zeros(3, 1, n_heads, 2 * n, n).unbind()
    W_O = torch.zeros(1, n_heads, n, 2 * n)
    W_K[0, :, :n] = torch.eye(n)
    W_V[0, :, :n] = torch.eye(n)
    W_Q[0, :, :n, 0] = FULL_ATTENTION * root
    for head, trigrams in enumerate(heads):
        for source, destination, output in trigrams:
            W_Q[0, head, destination, source] = 2 * FULL_ATTENTION * root
            W_O[0, head, source, n + output] = strength
    none = torch.zeros(1, n_heads, n)
    return CircuitWeights(
        W_E=torch.eye(n, 2 * n),
        W_Q=W_Q,
        W_K=W_K,
        W_V=W_V,
        b_Q=none,
        b_K=none,
        b_V=none,
        W_O=W_O,
        b_O=torch.zeros(1, 2 * n),
        W_U=torch.eye(2 * n)[:, n:],
        b_U=torch.zeros(n),
    )


def random_heads(
    *, n_layers: int, n_heads: int, d_model: int, d_head: int, d_vocab: int = 0, seed: int
) -> CircuitWeights:
    """Gaussian heads that know nothing of each other; `d_vocab` 0: every dimension of the stream is a token."""
    generator = generator_for(seed, "random heads")

    def drawn(*shape: int) -> Float[Tensor, "*shape"]:
        gaussian: Tensor = torch.randn(shape, generator=generator) / d_model**0.5
        return gaussian

    W_Q, W_K, W_V = (drawn(n_layers, n_heads, d_model, d_head) for _ in range(3))
    none = torch.zeros(n_layers, n_heads, d_head)
    return CircuitWeights(
        W_E=drawn(d_vocab, d_model) if d_vocab else torch.eye(d_model),
        W_Q=W_Q,
        W_K=W_K,
        W_V=W_V,
        b_Q=none,
        b_K=none,
        b_V=none,
        W_O=drawn(n_layers, n_heads, d_head, d_model),
        b_O=torch.zeros(n_layers, d_model),
        W_U=drawn(d_model, d_vocab) if d_vocab else torch.eye(d_model),
        b_U=torch.zeros(d_vocab or d_model),
    )


def with_planted_composition(
    weights: CircuitWeights, kind: str, writer: tuple[int, int], reader: tuple[int, int], *, seed: int
) -> CircuitWeights:
    """The same heads, of which one reads exactly what an earlier one writes, as query ("q"), key ("k") or value ("v").

    Writer and reader are (layer, head). The reading weights become a random mixture of the d_head rows of the writer's
    W_O, made orthonormal before: then the score is d_head ** -1/2 on average, whatever d_model is.
    """
    name = {"q": "W_Q", "k": "W_K", "v": "W_V"}.get(kind)
    if name is None or not writer[0] < reader[0]:
        raise ValueError(
            f"with_planted_composition: kind={kind!r}, writer {writer}, reader {reader} given. Give q, k or v, and a "
            "writer in an earlier layer than the reader."
        )
    generator = generator_for(seed, "planted composition")
    basis = torch.linalg.qr(weights.W_O[writer].double().T).Q
    mixture = torch.randn(weights.d_head, weights.d_head, generator=generator, dtype=torch.float64)
    changed = vars(weights)[name].clone()
    changed[reader] = (basis @ mixture / weights.d_head**0.5).to(changed)
    return replace(weights, **{name: changed})
