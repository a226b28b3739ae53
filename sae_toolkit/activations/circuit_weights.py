"""The weights of a transformer as its circuits use them: attention heads and what they read from and write to.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", with row vectors: a head maps what it reads, x,
to x W_V W_O, and a query x attends to a key y with the score x W_Q W_K^T y^T / sqrt(d_head).
"""

from dataclasses import dataclass, fields
from math import sqrt
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

NormKind = Literal["none", "layer", "rms"]


class Rotary(NamedTuple):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): the first dimensions of queries and keys turn."""

    cos: Float[Tensor, "n_ctx rotary_dim"]
    sin: Float[Tensor, "n_ctx rotary_dim"]

    def turned(self, x: Float[Tensor, "*rest d_head"], at: slice | int) -> Float[Tensor, "*rest d_head"]:
        """Queries or keys as they are at some positions; dimension i turns with dimension i + rotary_dim / 2."""
        n_turning = self.cos.shape[1]
        turning, still = x[..., :n_turning], x[..., n_turning:]
        first, second = turning.chunk(2, dim=-1)
        turned = turning * self.cos[at] + torch.cat([-second, first], dim=-1) * self.sin[at]
        return torch.cat([turned, still], dim=-1)


@dataclass(frozen=True, kw_only=True)
class CircuitWeights:
    """Embedding, attention heads and unembedding; norms are folded into what reads after them.

    A norm divides by one number per token, `scale`; its gain (and centring, and bias) stand in the weights that read
    next. With the scales and attention patterns of a text held fixed all that attention does is linear.
    """

    W_E: Float[Tensor, "d_vocab d_model"]
    W_Q: Float[Tensor, "n_layers n_heads d_model d_head"]
    W_K: Float[Tensor, "n_layers n_heads d_model d_head"]
    W_V: Float[Tensor, "n_layers n_heads d_model d_head"]
    b_Q: Float[Tensor, "n_layers n_heads d_head"]
    b_K: Float[Tensor, "n_layers n_heads d_head"]
    b_V: Float[Tensor, "n_layers n_heads d_head"]
    W_O: Float[Tensor, "n_layers n_heads d_head d_model"]
    b_O: Float[Tensor, "n_layers d_model"]
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"]
    W_pos: Float[Tensor, "n_ctx d_model"] | None = None
    """Positions that are added to the residual stream."""
    W_pos_qk: Float[Tensor, "n_ctx d_model"] | None = None
    """Positions that queries and keys read beside the residual stream, and values do not."""
    rotary: Rotary | None = None
    """Positions that turn queries and keys."""
    norm: NormKind = "none"
    """What a token's residual stream is divided by before it is read: nothing, standard deviation, root mean square."""
    eps: float = 0.0
    """Added to the variance (mean square) in that scale."""
    has_mlps: bool = False
    """Whether the model also has MLPs, which stand in none of these weights."""

    @property
    def n_layers(self) -> int:
        return self.W_Q.shape[0]

    @property
    def n_heads(self) -> int:
        return self.W_Q.shape[1]

    @property
    def d_model(self) -> int:
        return self.W_E.shape[1]

    @property
    def d_head(self) -> int:
        return self.W_O.shape[2]

    def to(self, dtype: torch.dtype) -> "CircuitWeights":
        """Copies in another precision, without a graph."""
        values: dict[str, Any] = {f.name: vars(self)[f.name] for f in fields(self)}
        cast = {name: value.detach().to(dtype) for name, value in values.items() if isinstance(value, Tensor)}
        rotary = None if self.rotary is None else Rotary(*(angle.to(dtype) for angle in self.rotary))
        return CircuitWeights(**{**values, **cast, "rotary": rotary})

    def scale(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch 1"]:
        """What the norm divides a residual stream by."""
        if self.norm == "none":
            return torch.ones_like(residual[..., :1])
        if self.norm == "layer":
            residual = residual - residual.mean(-1, keepdim=True)
        return (residual.square().mean(-1, keepdim=True) + self.eps).sqrt()

    def pattern(self, layer: int, residual: Float[Tensor, "rows ctx d_model"]) -> Float[Tensor, "rows n_heads ctx ctx"]:
        """How much each token (third axis) attends to each earlier one and to itself (fourth axis)."""
        read, here = residual / self.scale(residual), slice(residual.shape[1])
        if self.W_pos_qk is not None:
            read = read + self.W_pos_qk[here]
        queries = torch.einsum("rcd,hde->rhce", read, self.W_Q[layer]) + self.b_Q[layer][:, None]
        keys = torch.einsum("rcd,hde->rhce", read, self.W_K[layer]) + self.b_K[layer][:, None]
        if self.rotary is not None:
            queries, keys = self.rotary.turned(queries, here), self.rotary.turned(keys, here)
        scores = queries @ keys.mT / sqrt(self.d_head)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(future, -torch.inf).softmax(-1)

    def attn_out(
        self,
        layer: int,
        residual: Float[Tensor, "rows ctx d_model"],
        pattern: Float[Tensor, "rows n_heads ctx ctx"] | None = None,
    ) -> Float[Tensor, "rows ctx d_model"]:
        """What a layer's heads add to the residual stream; with a given pattern, what they would add."""
        pattern = self.pattern(layer, residual) if pattern is None else pattern
        read = residual / self.scale(residual)
        values = torch.einsum("rcd,hde->rhce", read, self.W_V[layer]) + self.b_V[layer][:, None]
        return torch.einsum("rhce,hed->rcd", pattern @ values, self.W_O[layer]) + self.b_O[layer]

    def embed(self, tokens: Int[Tensor, "rows ctx"]) -> Float[Tensor, "rows ctx d_model"]:
        """The residual stream before the first layer."""
        embedded = self.W_E[tokens]
        return embedded if self.W_pos is None else embedded + self.W_pos[: tokens.shape[1]]

    def unembed(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of the last residual stream."""
        return residual / self.scale(residual) @ self.W_U + self.b_U

    def residuals(self, tokens: Int[Tensor, "rows ctx"]) -> list[Float[Tensor, "rows ctx d_model"]]:
        """The residual stream before every layer and after the last, of a model without MLPs."""
        if self.has_mlps:
            raise ValueError(
                "CircuitWeights.residuals: the model has MLPs, which these weights leave out. Take its residual "
                "streams from LanguageModel.capture."
            )
        found = [self.embed(tokens)]
        for layer in range(self.n_layers):
            found.append(found[-1] + self.attn_out(layer, found[-1]))
        return found

    def logits(self, tokens: Int[Tensor, "rows ctx"]) -> Float[Tensor, "rows ctx d_vocab"]:
        """Next-token logits of a model without MLPs."""
        return self.unembed(self.residuals(tokens)[-1])

    def check_head(self, layer: int, *heads: int) -> None:
        """Refuses layers and heads that do not exist."""
        if not 0 <= layer < self.n_layers or not heads or not all(0 <= head < self.n_heads for head in heads):
            raise ValueError(
                f"CircuitWeights: layer {layer}, heads {list(heads)} asked, but the model has {self.n_layers} layers "
                f"of {self.n_heads} heads. Both count from 0; name at least one head."
            )
