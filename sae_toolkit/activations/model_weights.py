"""Circuit weights read from a language model: norms folded, biases kept, checked against what the model computes."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_toolkit.activations.circuit_weights import CircuitWeights, NormKind, Rotary
from sae_toolkit.activations.language_model import ROUNDING, LanguageModel, relative_difference


class Norm(NamedTuple):
    """A norm before it is folded."""

    kind: NormKind
    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    eps: float

    def fold(
        self, W: Float[Tensor, "*heads d_model d_out"], b: Float[Tensor, "*heads d_out"]
    ) -> tuple[Float[Tensor, "*heads d_model d_out"], Float[Tensor, "*heads d_out"]]:
        """Weights that read x / scale and compute what W and b do behind the norm."""
        gained = self.gain[:, None] * W
        if self.kind == "layer":  # (x - mean x) W = x (W - mean over rows of W)
            gained = gained - gained.mean(-2, keepdim=True)
        return gained, b + self.bias @ W


def read_circuit_weights(model: LanguageModel) -> CircuitWeights:
    """The weights in float32; any architecture whose attention they explain, a ValueError for others.

    Checked on the model's probe: every layer's attention output from its residual stream, and the logits from the last
    one. GPT-2 and Llama kinds pass (grouped keys and values are repeated for every head); attention with windows, caps
    or norms of its own does not.
    """
    bridge: Any = model.bridge
    try:
        weights = folded_weights(bridge)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError) as error:
        raise ValueError(refusal(model, f"its weights cannot be read: {str(error).splitlines()[0]}")) from error
    check_against(model, weights)
    return weights


def folded_weights(bridge: Any) -> CircuitWeights:
    """What the bridge's components hold, layer by layer."""
    heads = [folded_heads(block) for block in bridge.blocks]
    final = norm_of(bridge.ln_final)
    W_U, b_U = final.fold(*(tensor_of(part) for part in (bridge.unembed.W_U, bridge.unembed.b_U)))
    positions = bridge.cfg.positional_embedding_type
    return CircuitWeights(
        **{name: torch.stack([layer[name] for layer in heads]) for name in heads[0]},
        W_E=tensor_of(bridge.embed.W_E),
        W_U=W_U,
        b_U=b_U,
        W_pos=tensor_of(bridge.pos_embed.weight) if positions == "standard" else None,
        rotary=rotary_of(bridge) if positions == "rotary" else None,
        norm=final.kind,
        eps=final.eps,
        has_mlps=True,
    )


def folded_heads(block: Any) -> dict[str, Tensor]:
    """One layer's weights by name; heads that share keys and values get copies."""
    norm, attn = norm_of(block.ln1), block.attn
    W_O = tensor_of(attn.W_O)
    n_heads, d_head, d_model = W_O.shape
    found = {"W_O": W_O, "b_O": W_O.new_zeros(d_model) if attn.b_O is None else tensor_of(attn.b_O)}
    for letter, W, b in (("Q", attn.W_Q, attn.b_Q), ("K", attn.W_K, attn.b_K), ("V", attn.W_V, attn.b_V)):
        bias = W_O.new_zeros(len(W), d_head) if b is None else tensor_of(b)
        folded = norm.fold(tensor_of(W), bias)
        each = n_heads // len(W)
        found[f"W_{letter}"], found[f"b_{letter}"] = (part.repeat_interleave(each, dim=0) for part in folded)
    return found


def norm_of(component: Any) -> Norm:
    """Kind, gain, bias and eps of the norm that a bridge wraps."""
    inner = component.original_component
    gain = tensor_of(inner.weight)
    if isinstance(inner, nn.LayerNorm):
        bias = torch.zeros_like(gain) if inner.bias is None else tensor_of(inner.bias)
        return Norm("layer", gain, bias, inner.eps)
    return Norm("rms", gain, torch.zeros_like(gain), inner.variance_epsilon)


def rotary_of(bridge: Any) -> Rotary:
    """Cosines and sines of every position, from the model's own module."""
    positions = torch.arange(bridge.cfg.n_ctx)[None]
    cos, sin = bridge.rotary_emb.original_component(torch.zeros(1, 1, 1, device=bridge.cfg.device), positions)
    return Rotary(tensor_of(cos[0]), tensor_of(sin[0]))


def tensor_of(parameter: Tensor) -> Tensor:
    """Float32, without a graph."""
    return parameter.detach().float()


@torch.no_grad()
def check_against(model: LanguageModel, weights: CircuitWeights) -> None:
    """Refuses weights that do not compute what the model's attention and unembedding compute."""
    layers = range(model.n_layers)
    pre, out = ([f"blocks.{layer}.{kind}" for layer in layers] for kind in ("hook_resid_pre", "hook_attn_out"))
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    missing = [hook for hook in (*pre, *out, last) if hook not in model.taps]
    if missing:
        raise ValueError(refusal(model, f"it has no {missing[0]}"))
    tokens = model.probe().to(model.device)
    seen = {hook: found.float() for hook, found in model.capture(tokens, [*pre, *out, last]).items()}
    pairs = {"the embedding": (weights.embed(tokens), seen[pre[0]])}
    pairs |= {out[i]: (weights.attn_out(i, seen[pre[i]]), seen[out[i]]) for i in layers}
    pairs |= {"the logits": (weights.unembed(seen[last]), model.logits(tokens).float())}
    for name, (found, expected) in pairs.items():
        apart = relative_difference(found, expected)
        if not apart <= ROUNDING[model.dtype]:
            raise ValueError(refusal(model, f"they give {name} wrong by {apart:.2g} (relative)"))


def refusal(model: LanguageModel, reason: str) -> str:
    """Why circuits of a model cannot be read."""
    return (
        f"read_circuit_weights: the weights of {model.name} do not explain its attention as plain heads: {reason}. "
        "Circuits can be read from models with ordinary attention behind one norm, such as GPT-2 and Llama."
    )
