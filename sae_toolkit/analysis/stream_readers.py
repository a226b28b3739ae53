"""What reads activations on their way to a prediction, and how the prediction depends on each reading.

A latent that writes z d into the residual stream is read by every later norm. Taken together, to first order, these
readings are the gradient at the hook: dM/dx = sum_r J_r^T dM/du_r, with u_r what reader r makes of the stream, J_r its
Jacobian and dM/du_r the total derivative. But a reader's own reaction to the loss of z d need not be taken to first
order: it is a function of one token, and can be called again.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_toolkit.activations.hooks import parse_hook
from sae_toolkit.activations.language_model import LanguageModel, relative_difference, remove
from sae_toolkit.activations.unembedding import writes_residual
from sae_toolkit.analysis.predictions import Prediction, check_prediction

COMPLETE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
"""How far the readers' gradients, added up, may lie from that at the hook, relative to its norm."""


class Reading(NamedTuple):
    """One reader in one pass of the model."""

    module: nn.Module | None
    """A function of one token; None: the activations themselves."""
    given: Float[Tensor, "rows context d_in"]
    gradient: Float[Tensor, "rows context d_out"]
    """Of each row's prediction in what the reader made of them."""

    def change(self, places: Int[Tensor, " n"], lost: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """What its output loses where `lost` is taken away at some of all rows * context tokens."""
        if self.module is None:
            return lost
        given = self.given.flatten(0, 1)[places]
        changed: Tensor = self.module(given).float() - self.module((given.float() - lost).to(given)).float()
        return changed


class ReadPass(NamedTuple):
    """One pass of the model forward and back, with some activations put in the place of its own at a hook."""

    prediction: Float[Tensor, " rows"]
    gradient: Float[Tensor, "rows context d_in"]
    """At the hook, of each row's prediction in its own activations."""
    readings: tuple[Reading, ...]


ReadAt = Callable[[LanguageModel, str, Tensor, Prediction, Tensor], ReadPass]
"""Model, hook, tokens, prediction and the activations to be put at the hook in; readings of one kind out."""


def read_at_hook(
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    point: Float[Tensor, "rows context d_in"],
) -> ReadPass:
    """The activations themselves as the only reading."""
    leaf = point.detach().requires_grad_()
    with torch.enable_grad(), model.replacing({hook: lambda _: leaf}):
        values = check_prediction(prediction(model.forward(tokens).float(), tokens), len(tokens))
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return ReadPass(values.detach(), gradient, (Reading(None, point, gradient),))


def read_by_stream(
    model: LanguageModel,
    hook: str,
    tokens: Int[Tensor, "rows context"],
    prediction: Prediction,
    point: Float[Tensor, "rows context d_in"],
) -> ReadPass:
    """Every innermost module behind the hook that is given the residual stream and makes something else of it.

    Found by comparing what modules are given with the stream, in the pass itself: norms, in common models. A hook that
    does not write into the stream, and a model whose readers' gradients do not add up to that at the hook, are
    ValueErrors.
    """
    if not writes_residual(model, hook):
        raise ValueError(
            f"read_by_stream: {hook} of {model.name} does not write into the residual stream as it is. Use "
            "gradient_attribution or integrated_attribution there."
        )
    leaf = point.detach().requires_grad_()
    stream: list[Tensor] = []
    found: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(residual: Tensor) -> None:
        stream[:] = [residual.detach().reshape(*tokens.shape, -1)]

    def compare(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        if not (stream and args and isinstance(args[0], Tensor) and isinstance(output, Tensor)):
            return
        given = args[0].detach()
        if given.numel() != stream[0].numel() or not torch.equal(given.reshape(stream[0].shape), stream[0]):
            return
        if output.shape != given.shape or not torch.equal(output, given):  # dropout at inference only passes it on
            found.append((module, stream[0], output))

    first = parse_hook(hook).depth
    later = [name for name in model.taps if "resid" in name and parse_hook(name).depth >= first]
    with torch.enable_grad(), model.replacing({hook: lambda _: leaf}):
        handles = [model.taps[name].attach(note) for name in later]
        handles += [module.register_forward_hook(compare) for module in model.module.modules()]
        try:
            values = check_prediction(prediction(model.forward(tokens).float(), tokens), len(tokens))
        finally:
            remove(handles)
        inner = [each for each in found if not any(holds(each[0], other) for other, *_ in found)]
        gradient, *others = torch.autograd.grad(values.sum(), [leaf, *(output for *_, output in inner)])
    readings = tuple(
        Reading(module, given, other.reshape(*tokens.shape, -1).float())
        for (module, given, _), other in zip(inner, others, strict=True)
    )
    check_complete(model, hook, gradient, readings)
    return ReadPass(values.detach(), gradient, readings)


def holds(module: nn.Module, other: nn.Module) -> bool:
    """Whether another module is a part of it, as the norms of a block are."""
    return other is not module and any(part is other for part in module.modules())


def check_complete(
    model: LanguageModel,
    hook: str,
    gradient: Float[Tensor, "rows context d_in"],
    readings: tuple[Reading, ...],
) -> None:
    """Refuses readers that are not all there are: their gradients must add up to the one at the hook."""
    total = torch.zeros_like(gradient)
    for reading in readings:
        assert reading.module is not None
        given = reading.given.detach().requires_grad_()
        with torch.enable_grad():
            made = reading.module(given)
            (part,) = torch.autograd.grad(made, given, reading.gradient.to(made).reshape(made.shape))
        total += part.float()
    apart = relative_difference(total, gradient)
    if not apart <= COMPLETE[model.dtype]:
        raise ValueError(
            f"read_by_stream: the modules of {model.name} that are given the residual stream behind {hook} do not "
            f"explain how the prediction depends on it ({apart:.2g} apart). Use gradient_attribution."
        )
