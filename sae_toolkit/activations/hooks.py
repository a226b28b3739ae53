"""The standard names of places in a transformer, and how a torch hook reads or writes there."""

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

NEURONS = "mlp.hook_post"
KINDS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", NEURONS, "hook_mlp_out", "hook_resid_post")
"""The places inside one block, in the order in which a forward pass computes them."""
PATTERN = re.compile(r"blocks\.(0|[1-9]\d*)\.(" + "|".join(re.escape(kind) for kind in KINDS) + ")")


class Place(NamedTuple):
    """What a hook name says."""

    layer: int
    """Number of the block, from 0."""
    kind: str
    """One of `KINDS`."""

    @property
    def depth(self) -> tuple[int, int]:
        """How far a forward pass must run to reach this place; sorts names in the order of the computation."""
        return self.layer, KINDS.index(self.kind)

    def beside(self, kind: str) -> str:
        """The name of another place in the same block."""
        return f"blocks.{self.layer}.{kind}"


def hook_names(n_layers: int) -> list[str]:
    """Every standard name of a model of n_layers blocks, in the order of the computation."""
    return [f"blocks.{layer}.{kind}" for layer in range(n_layers) for kind in KINDS]


def parse_hook(name: str) -> Place:
    """Layer and kind of a standard name; anything else is a ValueError that names the nearest standard name."""
    match = PATTERN.fullmatch(name)
    if match is None:
        number = re.search(r"\d+", name)
        layer = int(number.group()) if number else 0
        standard = [f"blocks.{layer}.{kind}" for kind in KINDS]
        near = difflib.get_close_matches(name, standard, n=1, cutoff=0.0)[0]
        raise ValueError(f"hook {name!r} is unknown. Did you mean {near!r}? Of a block there are {', '.join(KINDS)}.")
    return Place(int(match.group(1)), match.group(2))


def neurons_before(name: str) -> str | None:
    """Where the MLP neurons stand that were computed last before (or at) a place; None before the first MLP.

    A name that is no standard one is a ValueError.
    """
    place = parse_hook(name)
    layer = place.layer - (KINDS.index(place.kind) < KINDS.index(NEURONS))
    return place._replace(layer=layer).beside(NEURONS) if layer >= 0 else None


def check_hooks(asked: Sequence[str], available: Collection[str], n_layers: int) -> None:
    """Refuses unknown names, layers that do not exist, places this model lacks, and names given twice."""
    for name in asked:
        place = parse_hook(name)
        if place.layer >= n_layers:
            raise ValueError(
                f"hook {name!r} asked, but the model has n_layers={n_layers}. Choose a layer from 0 to {n_layers - 1}."
            )
        if name not in available:
            there = [kind for kind in KINDS if place.beside(kind) in available]
            raise ValueError(f"hook {name!r} asked, but this architecture has no such place. Choose from {there}.")
    twice = sorted({name for name in asked if list(asked).count(name) > 1})
    if twice:
        raise ValueError(f"hooks {twice} are given more than once. Give each once.")


class Tap(NamedTuple):
    """Where a place lies in a torch module: what goes into it, or what comes out of it."""

    module: nn.Module
    side: Literal["in", "out"]

    def attach(self, function: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Calls `function` with the tensor that passes here; what it returns goes on instead, None changes nothing."""

        def before(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
            given = args[0] if args else kwargs.get("hidden_states")
            if not isinstance(given, Tensor):
                raise ValueError(f"{type(module).__name__} is not given its activations as its first argument.")
            new = function(given)
            if new is None:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        def after(_module: nn.Module, _args: object, output: Tensor | tuple[Any, ...]) -> object:
            if isinstance(output, Tensor):
                return function(output)
            new = function(output[0])
            return None if new is None else (new, *output[1:])

        if self.side == "in":
            return self.module.register_forward_pre_hook(before, with_kwargs=True)  # type: ignore[arg-type]
        return self.module.register_forward_hook(after)
