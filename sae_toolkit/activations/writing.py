"""How other activations are put in the place of a model's own, at any of the standard names."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sae_toolkit.activations.hooks import Tap, parse_hook
from sae_toolkit.activations.source import Replacement


def attach_replacement(
    taps: Mapping[str, Tap], hook: str, function: Replacement, rows_context: Callable[[], torch.Size]
) -> list[RemovableHandle]:
    """The handles that remove it again. `rows_context`: rows and tokens of the call that is running.

    `function` gets `[rows context d]` in float32. Where it changes nothing, not a bit changes, and a gradient flows
    through what it returns.
    """

    def edited(activations: Tensor) -> Tensor:
        given = activations.reshape(*rows_context(), -1).float()
        new = function(given)
        if new.shape != given.shape:
            raise ValueError(
                f"LanguageModel.logits: the replacement at {hook} returned {tuple(new.shape)} for "
                f"{tuple(given.shape)}. Return the shape that was given."
            )
        return new.to(activations).reshape(activations.shape)

    place = parse_hook(hook)
    if place.kind != "hook_resid_mid":
        return [taps[hook].attach(edited)]
    before: list[Tensor] = []

    def note(residual: Tensor) -> None:
        before[:] = [residual]

    def through_attention(attn_out: Tensor) -> Tensor:
        """What attention must add for the residual stream to be the new one; untouched entries stay exact."""
        residual = before.pop().reshape(attn_out.shape)
        middle = residual + attn_out
        new = edited(middle)
        # new - middle is 0 there, but carries the gradient
        return torch.where(new == middle, attn_out + (new - middle), new - residual)

    return [
        taps[place.beside("hook_resid_pre")].attach(note),
        taps[place.beside("hook_attn_out")].attach(through_attention),
    ]
