"""Transformers of attention alone, whose circuits can be read off (Elhage et al. 2021): no MLPs, norms or biases."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.seeding import generator_for


class AttentionOnly(nn.Module):
    """0, 1, 2 or more layers of attention between an embedding and an unembedding.

    Positions are read by queries and keys alone (Press et al. 2020, "Shortformer", arXiv 2012.15832): the residual
    stream carries nothing but tokens and what heads move, so that every path is one of tokens.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes."""

        d_vocab: int
        """Tokens."""
        n_ctx: int
        """Tokens of the longest row."""
        d_model: int = 64
        """Width of the residual stream."""
        n_layers: int = 1
        """Layers of heads; none makes a bigram model."""
        n_heads: int = 4
        """Heads of each layer; each is d_model / n_heads wide."""

        def __post_init__(self) -> None:
            sizes = (self.d_vocab, self.n_ctx, self.d_model, self.n_heads)
            if min(sizes) < 1 or self.n_layers < 0 or self.d_model % self.n_heads:
                raise ValueError(
                    f"AttentionOnly: d_vocab, n_ctx, d_model, n_heads = {sizes}, n_layers={self.n_layers} given. All "
                    "must be at least 1 (layers: 0), and d_model a multiple of n_heads."
                )

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        """Gaussian weights that keep the size of what they are given; an embedding has rows of length about 1."""
        super().__init__()
        self.config = config
        layers, heads, d = config.n_layers, config.n_heads, config.d_model
        inner = d // heads
        generator = generator_for(seed, "attention-only initialisation")

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) / d**0.5)

        self.W_E, self.W_U = drawn(config.d_vocab, d), drawn(d, config.d_vocab)
        self.W_Q, self.W_K, self.W_V = (drawn(layers, heads, d, inner) for _ in range(3))
        self.W_O = drawn(layers, heads, inner, d)
        self.W_pos_qk = drawn(config.n_ctx, d)

    def weights(self) -> CircuitWeights:
        """The same tensors (and their graph) as circuits use them."""
        layers, heads, d, inner = self.W_Q.shape
        none = self.W_E.new_zeros(layers, heads, inner)
        return CircuitWeights(
            W_E=self.W_E,
            W_Q=self.W_Q,
            W_K=self.W_K,
            W_V=self.W_V,
            b_Q=none,
            b_K=none,
            b_V=none,
            W_O=self.W_O,
            b_O=self.W_E.new_zeros(layers, d),
            W_U=self.W_U,
            b_U=self.W_E.new_zeros(self.W_U.shape[1]),
            W_pos_qk=self.W_pos_qk,
        )

    def forward(self, tokens: Int[Tensor, "rows ctx"]) -> Float[Tensor, "rows ctx d_vocab"]:
        """Next-token logits."""
        if tokens.shape[1] > self.config.n_ctx:
            raise ValueError(
                f"AttentionOnly: rows of {tokens.shape[1]} tokens given, but the model reads at most "
                f"n_ctx={self.config.n_ctx}. Give shorter rows or build it with a larger n_ctx."
            )
        return self.weights().logits(tokens)
