"""A causal language model as this package uses it: token ids in, activations at named places or logits out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sae_toolkit.activations.current_reading import CurrentReading
from sae_toolkit.activations.hooks import Tap, check_hooks, hook_names, parse_hook
from sae_toolkit.activations.model_hash import hash_weights
from sae_toolkit.activations.source import Replacement
from sae_toolkit.activations.writing import attach_replacement
from sae_toolkit.seeding import generator_for

N_PROBE = 64
"""Tokens in the fixed probe."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""How far two ways to compute the same activations may lie apart, relative to their norm (bf16 keeps 8 bits)."""
CENTRED = 1e-3
"""A mean over d this small against the root mean square is no accident: raw activations have about d ** -0.5."""


class EverythingCaptured(Exception):
    """Ends a forward pass after the last activation that is needed; never leaves this file."""


class LanguageModel:
    """Activations of a causal language model by TransformerLens name, computed as far as needed and no further."""

    def __init__(
        self,
        *,
        name: str,
        tokenizer: Any,
        bridge: Any,
        module: nn.Module,
        taps: Mapping[str, Tap],
        sha256: str,
        origin: Mapping[str, Any],
    ) -> None:
        """`module` computes: a plain Hugging Face model, or the bridge itself. `taps` are the places in it, by name.

        The bridge knows names and sizes; `origin` (how the model came to be, JSON-ready) goes into `describe`.
        """
        parameter = next(module.parameters())
        if parameter.dtype not in ROUNDING:
            raise ValueError(f"LanguageModel: {name} is in {parameter.dtype}. Load it in float32 or bfloat16.")
        if module.training:
            raise ValueError(f"LanguageModel: {name} is in training mode, with dropout. Call its eval() first.")
        self.name, self.tokenizer, self.bridge, self.module = name, tokenizer, bridge, module
        self.taps, self.weights_sha256, self.origin = dict(taps), sha256, dict(origin)
        self.dtype: torch.dtype = parameter.dtype
        self.device: torch.device = parameter.device
        self.n_layers: int = bridge.cfg.n_layers
        self.d_vocab: int = bridge.cfg.d_vocab
        self.max_context: int = bridge.cfg.n_ctx
        self.widths: dict[str, int] = {}
        self.sums: dict[int, bool] = {}

    @classmethod
    def from_bridge(cls, bridge: Any, tokenizer: Any, *, name: str) -> "LanguageModel":
        """A TransformerBridge the caller already has. Its own hooks stay and act on what is read here.

        Give the tokenizer the text is cut with, not `bridge.tokenizer`, which prepends BOS by itself. A bridge whose
        weights were centred (compatibility mode, `process_weights`) is a ValueError: SAEs read raw activations.
        """
        refuse_compatibility_mode(bridge, name)
        model = cls(
            name=name,
            tokenizer=tokenizer,
            bridge=bridge,
            module=bridge,
            taps={hook: Tap(point, "out") for hook, point in standard_points(bridge).items()},
            sha256=hash_weights(bridge.state_dict()),
            origin={"loaded_by": "TransformerBridge"},
        )
        last = f"blocks.{model.n_layers - 1}.hook_resid_post"
        if largest_mean(model.capture(model.probe(), [last])[last]) < CENTRED:
            raise ValueError(
                f"LanguageModel.from_bridge: the weights of {name} are centred (the activations at {last} have mean 0 "
                "over d). SAEs read raw activations: boot the bridge anew, without process_weights."
            )
        return model

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of all places that can be read, in the order of the computation."""
        return tuple(self.taps)

    def width(self, hook: str) -> int:
        """Length of one activation vector at this place."""
        if hook not in self.widths:
            self.widths[hook] = self.capture(self.probe()[:1, :1], [hook])[hook].shape[-1]
        return self.widths[hook]

    def probe(self) -> Int[Tensor, "rows context"]:
        """64 token ids that depend on d_vocab alone, in one row where the model reads that many."""
        ids = torch.randint(self.d_vocab, (N_PROBE,), generator=generator_for(0, "fingerprint probe"))
        return ids.view(-1, min(N_PROBE, 2 ** (self.max_context.bit_length() - 1)))

    @torch.no_grad()
    def capture(
        self, tokens: Int[Tensor, "rows context"], hooks: Sequence[str]
    ) -> dict[str, Float[Tensor, "rows context d"]]:
        """Activations by hook, in the model's dtype and on its device, each a tensor of its own.

        The forward pass ends right after the last of them: no later block and no logits are computed.
        """
        self.check(tokens, hooks)
        if not hooks:
            raise ValueError("LanguageModel.capture: no hook asked. Name at least one.")
        captured: dict[str, Tensor] = {}
        shape = (*tokens.shape, -1)

        def keep(hook: str) -> Callable[[Tensor], None]:
            def read(activations: Tensor) -> None:
                # A copy: the model may go on in place, and a view would keep all of a larger tensor alive.
                captured[hook] = activations.detach().reshape(shape).clone(memory_format=torch.contiguous_format)
                if len(captured) == len(hooks):
                    raise EverythingCaptured

            return read

        handles: list[RemovableHandle] = []
        try:
            handles += [self.taps[hook].attach(keep(hook)) for hook in hooks]
            self.forward(tokens)
        except EverythingCaptured:
            return {hook: captured[hook] for hook in hooks}
        finally:
            remove(handles)
        raise ValueError(
            f"LanguageModel.capture: {sorted(set(hooks) - set(captured))} asked, but {self.name} ran without passing "
            "there. This architecture cannot be read at these hooks."
        )

    @torch.no_grad()
    def logits(
        self, tokens: Int[Tensor, "rows context"], replace: Mapping[str, Replacement] | None = None
    ) -> Float[Tensor, "rows context d_vocab"]:
        """`differentiable_logits` without a graph."""
        return self.differentiable_logits(tokens, replace)

    def differentiable_logits(
        self, tokens: Int[Tensor, "rows context"], replace: Mapping[str, Replacement] | None = None
    ) -> Float[Tensor, "rows context d_vocab"]:
        """Next-token logits in the model's dtype, with the activations at some hooks replaced by functions of them.

        A function gets `[rows context d]` in float32 and returns the same shape. Where it changes nothing, not a bit
        changes. What is written at hook_resid_mid reaches the skip connection too (in TransformerLens it does not).
        """
        self.check(tokens, ())
        with self.replacing(replace or {}):
            return self.forward(tokens)

    @contextmanager
    def replacing(self, replace: Mapping[str, Replacement]) -> Iterator[None]:
        """The same replacements in every call of the model inside, also in your own calls of `module`.

        They are taken off at the end, also after an error; other hooks stay. Gradients flow where they are switched on.
        """
        check_hooks(list(replace), self.taps, self.n_layers)
        for hook in replace:
            self.check_writable(hook)
        reading = CurrentReading()
        handles: list[RemovableHandle] = []
        with reading.of(self.module):
            try:
                # Hooks of one module act in the order in which they were attached.
                for hook in sorted(replace, key=lambda name: parse_hook(name).depth):
                    handles += attach_replacement(self.taps, hook, replace[hook], lambda: reading.now.tokens.shape)
                yield
            finally:
                remove(handles)

    def check_writable(self, hook: str) -> None:
        """Refuses hook_resid_mid where attention's output is not simply added to the residual stream."""
        place = parse_hook(hook)
        if place.kind != "hook_resid_mid":
            return
        if place.layer not in self.sums:
            names = [place.beside(kind) for kind in ("hook_resid_pre", "hook_attn_out", "hook_resid_mid")]
            self.sums[place.layer] = False
            if all(name in self.taps for name in names):
                before, added, middle = self.capture(self.probe(), names).values()
                self.sums[place.layer] = relative_difference(before + added, middle) <= ROUNDING[self.dtype]
        if not self.sums[place.layer]:
            raise ValueError(
                f"LanguageModel.logits: {hook} cannot be replaced in {self.name}, whose resid_mid is not resid_pre + "
                "attn_out. Replace hook_attn_out or hook_resid_post instead."
            )

    def forward(self, tokens: Int[Tensor, "rows context"]) -> Tensor:
        """Logits of whatever computes, the plain model or the bridge."""
        tokens = tokens.to(self.device)
        if self.module is self.bridge:
            refuse_compatibility_mode(self.bridge, self.name)
            logits: Tensor = self.module(tokens, return_type="logits", use_cache=False)
            return logits
        plain: Tensor = self.module(input_ids=tokens, use_cache=False).logits
        return plain

    def check(self, tokens: Int[Tensor, "rows context"], hooks: Sequence[str]) -> None:
        """Refuses hooks that do not exist, ids outside the vocabulary and rows longer than the model reads."""
        check_hooks(hooks, self.taps, self.n_layers)
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(f"LanguageModel: tokens of shape {tuple(tokens.shape)} given, [rows context] is needed.")
        if tokens.shape[1] > self.max_context:
            raise ValueError(
                f"LanguageModel: context_length={tokens.shape[1]} asked, but {self.name} reads at most "
                f"{self.max_context} tokens. Choose context_length <= {self.max_context}."
            )
        low, high = (int(bound) for bound in tokens.aminmax())
        if low < 0 or high >= self.d_vocab:
            raise ValueError(
                f"LanguageModel: token ids from {low} to {high} given, but {self.name} knows 0 to {self.d_vocab - 1}. "
                "Tokenizer and model do not match."
            )

    def describe(self) -> dict[str, Any]:
        """Provenance as JSON-ready values."""
        return {
            "name": self.name,
            "architecture": str(self.bridge.cfg.architecture),
            "n_layers": self.n_layers,
            "d_vocab": self.d_vocab,
            "max_context": self.max_context,
            "dtype": str(self.dtype).removeprefix("torch."),
            "weights_sha256": self.weights_sha256,
            **self.origin,
        }


def standard_points(bridge: Any) -> dict[str, Any]:
    """The bridge's HookPoints at the standard names it has, in the order of the computation."""
    points = bridge.hook_dict
    found = {hook: points[hook] for hook in hook_names(bridge.cfg.n_layers) if hook in points}
    # A mixture of experts has no one layer of neurons; TransformerLens then gives the MLP's output under both names.
    outputs = {points[hook].name for hook in found if hook.endswith("hook_mlp_out")}
    return {hook: point for hook, point in found.items() if hook.endswith("hook_mlp_out") or point.name not in outputs}


def refuse_compatibility_mode(bridge: Any, name: str) -> None:
    """Compatibility mode centres and folds weights; SAEs read raw activations."""
    if bridge.compatibility_mode:
        raise ValueError(
            f"LanguageModel: the bridge {name} is in compatibility mode, which centres and folds weights. SAEs read "
            "raw activations: boot it anew, without enable_compatibility_mode."
        )


def remove(handles: Sequence[RemovableHandle]) -> None:
    """Takes temporary hooks off again."""
    for handle in handles:
        handle.remove()


def largest_mean(activations: Float[Tensor, "*batch d"]) -> float:
    """The largest |mean over d| of a vector against its root mean square; about 0 where weights were centred."""
    vectors = activations.double()
    return float((vectors.mean(-1).abs() / vectors.square().mean(-1).sqrt().clamp(min=1e-30)).max())


def relative_difference(found: Float[Tensor, "*shape"], expected: Float[Tensor, "*shape"]) -> float:
    """|found - expected| / |expected|, both as one long vector."""
    return float((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))
