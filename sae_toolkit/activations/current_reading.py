"""Which tokens a model is reading now, whoever called it: hooks are told activations alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor, nn


class Reading(NamedTuple):
    """The tokens of one call."""

    tokens: Int[Tensor, "rows context"]
    first_position: int
    """Position of the first column in the whole row: above 0 where earlier tokens are in a key-value cache."""


class CurrentReading:
    """Watches the calls of a module from outside."""

    def __init__(self) -> None:
        self.reading: Reading | None = None

    @contextmanager
    def of(self, module: nn.Module) -> Iterator["CurrentReading"]:
        """Watches while the context lasts; other hooks on the module stay as they are."""
        handles = [
            module.register_forward_pre_hook(self.begin, with_kwargs=True),
            module.register_forward_hook(self.end, always_call=True),
        ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Notes the tokens of a call; a call without token ids is a ValueError."""
        tokens = args[0] if args else kwargs.get("input_ids", kwargs.get("input"))
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
            given = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise ValueError(
                f"{type(module).__name__} is called with {given} while its activations are being edited. "
                "Give token ids of shape [rows context]."
            )
        past = kwargs.get("past_key_values")
        self.reading = Reading(tokens, 0 if past is None else int(past.get_seq_length()))

    def end(self, _module: nn.Module, _args: object, _output: object) -> None:
        """Forgets them, also after an error inside the call."""
        self.reading = None

    @property
    def now(self) -> Reading:
        """The call that is running; a part of the model that runs by itself is a ValueError."""
        if self.reading is None:
            raise ValueError(
                "a part of the model was called by itself while its activations are being edited. Call the whole "
                "model (LanguageModel.logits, or its `module`), so that it is known which tokens are read."
            )
        return self.reading
