"""From the residual stream to the vocabulary: the last norm with its scale held fixed, and the unembedding.

A norm is g * (x - c mean(x)) / s(x) + b, with s the standard deviation (LayerNorm, c = 1) or the root mean square
(RMSNorm, c = 0). With s held fixed it is linear, and so is what a vector adds to the logits: direct logit attribution
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). c and g are measured, not read, so that every
way to store a gain (as g, as g - 1, not at all) is understood.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_toolkit.activations.hooks import Tap, parse_hook
from sae_toolkit.activations.language_model import ROUNDING, LanguageModel, relative_difference

LARGE = 10.0
"""Size of the inputs a norm is measured with: what it adds to the variance against division by 0 vanishes beside it."""


@dataclass(frozen=True, kw_only=True)
class Unembedding:
    """What vectors in the residual stream do to the logits: those before any softcap or factor behind the unembedding.

    Logits are taken less their mean over the vocabulary, which changes no probability.
    """

    norm: nn.Module
    """The last norm."""
    head: nn.Module
    """From its output to logits."""
    gain: Float[Tensor, " d_model"]
    centred: bool
    """Whether the norm subtracts the mean over d_model."""
    dtype: torch.dtype
    """What the model computes in."""

    def folded(self, vectors: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Vectors behind the norm's centring and gain, before its division."""
        vectors = vectors.to(self.gain)
        return self.gain * (vectors - vectors.mean(-1, keepdim=True)) if self.centred else self.gain * vectors

    @torch.no_grad()
    def direct(self, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
        """What the vectors add to the logits at scale 1; multiply by `inverse_scale` of the residual stream.

        `[n d_vocab]` numbers in float32: give few vectors at a time.
        """
        read = self.folded(vectors).to(self.dtype)
        logits = self.head(torch.cat([read, torch.zeros_like(read[:1])])).float()
        added: Tensor = logits[:-1] - logits[-1]  # the head may have a bias
        return added - added.mean(-1, keepdim=True)

    @torch.no_grad()
    def inverse_scale(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """1 / s(x) of residual streams in front of the last norm."""
        x = residual.to(self.gain)
        odd_part = (self.norm(x.to(self.dtype)).float() - self.norm(-x.to(self.dtype)).float()) / 2
        folded = self.folded(x)
        inverse: Tensor = (odd_part * folded).sum(-1) / folded.square().sum(-1).clamp(min=1e-30)
        return inverse

    def matrix(self) -> Float[Tensor, "d_model d_vocab"]:
        """All of it at scale 1, as a matrix: for small vocabularies."""
        return self.direct(torch.eye(len(self.gain), device=self.gain.device))


def unembedding_of(model: LanguageModel) -> Unembedding:
    """Measured on the model's last norm, and checked on its probe; a model that ends otherwise is a ValueError."""
    norm, head = component(model, "ln_final"), component(model, "unembed")
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    gain, centred = measured_norm(norm, model.width(last), model)
    found = Unembedding(norm=norm, head=head, gain=gain, centred=centred, dtype=model.dtype)
    seen: list[Tensor] = []
    handle = Tap(head, "in").attach(lambda given: seen.append(given.detach().float()))
    try:
        model.logits(model.probe())
    finally:
        handle.remove()
    residual = model.capture(model.probe(), [last])[last].float()
    with torch.no_grad():
        shift = norm(torch.zeros_like(residual[:1, :1]).to(model.dtype)).float()
    expected = found.folded(residual) * found.inverse_scale(residual)[..., None] + shift
    apart = relative_difference(expected, seen[0].reshape(expected.shape))
    if not apart <= ROUNDING[model.dtype]:
        raise ValueError(
            f"unembedding_of: the logits of {model.name} are not the unembedding of a LayerNorm or RMSNorm of its last "
            f"residual stream ({apart:.2g} apart). Direct effects on its logits cannot be computed; ablate instead."
        )
    return found


def component(model: LanguageModel, name: str) -> nn.Module:
    """A part of the model by its TransformerLens name, in whatever computes: the plain model or the bridge."""
    adapter: Any = model.bridge.adapter
    if name not in adapter.component_mapping:
        raise ValueError(
            f"unembedding_of: {model.name} has no {name}, so its logits are not read off a residual stream."
        )
    path: str = name if model.module is model.bridge else adapter.translate_transformer_lens_path(name)
    found: nn.Module = model.module.get_submodule(path)
    return found


@torch.no_grad()
def measured_norm(norm: nn.Module, d_model: int, model: LanguageModel) -> tuple[Float[Tensor, " d_model"], bool]:
    """Gain of a norm, and whether it subtracts the mean, from what it makes of three vectors."""
    signs = 1.0 - 2.0 * (torch.arange(d_model, device=model.device) % 2)
    balanced = LARGE * (signs - signs.mean())  # mean 0, no entry 0: both kinds of norm see the same scale

    def odd_part(x: Tensor) -> Tensor:
        x = x.to(model.dtype)[None, None]
        difference: Tensor = norm(x).float() - norm(-x).float()
        return difference[0, 0] / 2

    gain = odd_part(balanced) * balanced.square().mean().sqrt() / balanced
    shifted = odd_part(balanced + LARGE)
    centred = relative_difference(shifted, odd_part(balanced)) < relative_difference(
        shifted, gain * (balanced + LARGE) / (balanced + LARGE).square().mean().sqrt()
    )
    return gain, centred


def writes_residual(model: LanguageModel, hook: str) -> bool:
    """Whether what is written at a hook is in the residual stream as it is.

    So are the residual stream itself and, where resid_pre + attn_out + mlp_out is resid_post (no norm or factor on the
    way), what attention and MLP give; neurons never are.
    """
    place = parse_hook(hook)
    if place.kind not in ("hook_attn_out", "hook_mlp_out"):
        return place.kind != "mlp.hook_post"
    names = [place.beside(f"hook_{part}") for part in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    if not all(name in model.taps for name in names):
        return False
    before, attention, neurons, after = (x.float() for x in model.capture(model.probe(), names).values())
    return relative_difference(before + attention + neurons, after) <= ROUNDING[model.dtype]
