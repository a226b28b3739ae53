"""The shape checks of the tests, with a memory: jaxtyping and beartype look at every kind of call once.

What they say about a call depends on types, dtypes, numbers of dimensions, on which sizes are equal, and on strings
(for literals). They take longer than most functions do: 60 % of a training loop, which repeats a few kinds of calls a
thousand times. A kind of call, by its arguments and its result, that a function has not had yet is always checked, and
so is each call with a value whose parts `kind` cannot name.
"""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Hashable
from typing import Any

import jaxtyping
import numpy as np
import torch

REMEMBERED = 4096
"""Kinds of calls of one function; after so many it starts anew."""
PARTS = 16
"""A longer list or dictionary is not named part by part."""
DEPENDS_ON_MORE = re.compile(r"[{#]|[a-z] ?[-+*/] ?\w|Literal\[[^'\"]*\d")
"""Annotations with an axis that is computed or broadcast, or with a number as a literal."""
LONGEST_LITERAL = 64
ARRAYS = (torch.Tensor, np.ndarray)

plain_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """From here on the import hook of jaxtyping decorates with the `jaxtyped` of this file."""
    jaxtyping.jaxtyped = jaxtyping._decorator.jaxtyped = jaxtyped


def jaxtyped(target: Any = None, *, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped`, as its import hook calls it, with a memory for each function."""
    if target is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not inspect.isfunction(target):
        return plain_jaxtyped(target, typechecker=typechecker)  # which comes back for the functions inside
    if "checked_once" in vars(target):  # an inherited __init__
        return target
    place = (target.__code__, str(target.__annotations__))
    if place not in MEMORIES:  # a function inside a function is defined anew at every call
        signature = inspect.signature(target)
        more = DEPENDS_ON_MORE.search(str(signature)) is not None
        MEMORIES[place] = None if more else Memory(target, typechecker, signature)
    memory = MEMORIES[place]
    return plain_jaxtyped(target, typechecker=typechecker) if memory is None else checked_once(target, memory)


class UnnamedError(Exception):
    """There is a value of which `kind` cannot say all that a check might look at."""


def kind(value: Any, sizes: dict[int, int], sampled: bool = False) -> Hashable:
    """The same for two values only if every check says the same about both; `sizes` numbers those seen in a call.

    Of a list, and where tuples are `sampled`, a check looks at one part by chance: its parts must be of one kind.
    """
    if isinstance(value, ARRAYS):
        return type(value), value.dtype, *[sizes.setdefault(size, len(sizes)) for size in value.shape]
    if value is None or isinstance(value, type) or (isinstance(value, str) and len(value) <= LONGEST_LITERAL):
        return value
    if isinstance(value, str | bytes):
        return type(value)
    if isinstance(value, tuple | list) and len(value) <= PARTS:
        parts = [kind(part, sizes, sampled) for part in value]
        if (sampled or isinstance(value, list)) and len(set(parts)) > 1:
            raise UnnamedError
        return type(value), *parts
    if type(value) is dict and len(value) <= PARTS:
        return dict, *[kind(part, sizes, sampled) for pair in value.items() for part in pair]
    if isinstance(value, Collection):
        raise UnnamedError
    return type(value)


class Memory:
    """The checks of one function, and the kinds of calls that passed them."""

    def __init__(self, function: Callable[..., Any], typechecker: Any, signature: inspect.Signature) -> None:
        self.due: list[Callable[[], Any]] = []
        checked = functools.wraps(function)(lambda *args, **kwargs: self.due.pop()())
        self.checked = plain_jaxtyped(checked, typechecker=typechecker)
        self.passed: dict[Hashable, set[Hashable]] = {}
        first = next(iter(signature.parameters.values()), None)
        self.n_unchecked = int(first is not None and first.annotation is inspect.Parameter.empty)  # a method's self
        self.sampled = "..." in str(signature)  # as in tuple[int, ...]
        self.sizes = {int(size): -1 - int(size) for size in re.findall(r"(?<![\w.])\d+", str(signature))}

    def check(self, call: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `call` gives, between a check of the arguments and one of the result."""
        self.due.append(call)
        n_due = len(self.due)
        try:
            return self.checked(*args, **kwargs)
        finally:
            del self.due[n_due - 1 :]  # where the arguments were refused

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], sizes: dict[int, int]) -> Hashable:
        """The kinds of all arguments that are checked; None where one has no name."""
        try:
            checked = [kind(part, sizes, self.sampled) for part in args[self.n_unchecked :]]
            return (*checked, kind(kwargs, sizes, self.sampled)) if kwargs else tuple(checked)
        except UnnamedError:
            return None

    def results(self, value: Any, sizes: dict[int, int]) -> set[Hashable]:
        """The kind of a result, where it has a name."""
        try:
            return {kind(value, sizes, self.sampled)}
        except UnnamedError:
            return set()


MEMORIES: dict[Hashable, Memory | None] = {}
"""By code and annotations; None where checks depend on more than kinds."""


def checked_once(function: Callable[..., Any], memory: Memory) -> Callable[..., Any]:
    """The function, checked as far as its memory does not know a call."""

    @functools.wraps(function)
    def once(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        sizes = memory.sizes.copy()
        given = memory.arguments(args, kwargs, sizes)
        if given not in memory.passed:
            result = memory.check(lambda: function(*args, **kwargs), args, kwargs)
            if given is not None:
                if len(memory.passed) == REMEMBERED:
                    memory.passed.clear()
                memory.passed.setdefault(given, set()).update(memory.results(result, sizes))
            return result
        result = function(*args, **kwargs)
        found = memory.results(result, sizes)
        if not found or not found <= memory.passed.get(given, set()):
            memory.check(lambda: result, args, kwargs)
            memory.passed.setdefault(given, set()).update(found)
        return result

    vars(once)["checked_once"] = True
    return once
