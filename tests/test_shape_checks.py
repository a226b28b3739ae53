"""Checks with a memory refuse what checks without one refuse, whatever they saw before."""

from collections.abc import Iterator
from typing import Any, Literal

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Int
from shape_checks import MEMORIES, PARTS, jaxtyped, plain_jaxtyped
from torch import Tensor

from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.metrics.bootstrap import divide
from sae_toolkit.sparse_rows import SparseRows, weighted_bags

F, L = torch.float32, torch.int64


def zeros(*shape: int, dtype: torch.dtype = F) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def pairs(x: Float[Tensor, "batch d"], y: Float[Tensor, " d"], n: int = 0) -> Float[Tensor, " batch"]:
    return zeros(len(x) + n)


def words(mode: Literal["a", "b"], *, x: Float[Tensor, "2 n"] | None = None) -> str | None:
    return None if x is None else mode


def parts(xs: dict[str, Float[Tensor, " n"]], ids: list[Int[Tensor, " n"]], pair: tuple[int, str]) -> int:
    return len(xs)


def leading(x: Float[Tensor, "*batch d"], y: Float[np.ndarray, "*batch d"]) -> Float[Tensor, "*batch"]:
    return x.sum(-1)


def shorter(x: Float[Tensor, " n"], y: Float[Tensor, " n-1"]) -> None: ...


def many(xs: tuple[int, ...]) -> int | str:
    return len(xs) if len(xs) < 3 else "many"


CALLS: list[tuple[Any, list[tuple[tuple[Any, ...], dict[str, Any]]]]] = [
    (
        pairs,
        [
            ((zeros(3, 4), zeros(4)), {}),
            ((zeros(3, 3), zeros(3)), {}),
            ((zeros(3, 4), zeros(3)), {}),
            ((zeros(4, 3), zeros(4)), {}),
            ((zeros(5, 4), zeros(4)), {"n": 1}),
            ((zeros(5, 4), zeros(4)), {"n": 0}),
            ((zeros(3, 4), zeros(4, dtype=torch.float64)), {}),
            ((zeros(3, 4), zeros(4, dtype=L)), {}),
            ((zeros(3, 4, 1), zeros(4)), {}),
            ((zeros(3, 4), [0.0] * 4), {}),
            ((zeros(3, 4),), {"y": zeros(4)}),
            ((zeros(3, 4),), {"y": zeros(3)}),
            ((zeros(3, 4), zeros(4), True), {}),
            ((zeros(3, 4), zeros(4), 1.0), {}),
        ],
    ),
    (
        words,
        [
            (("a",), {}),
            (("c",), {}),
            (("b",), {"x": zeros(2, 5)}),
            (("b",), {"x": zeros(3, 5)}),
            (("b",), {"x": zeros(5, 2)}),
            (("b",), {"x": zeros(2, 2)}),
            ((None,), {}),
        ],
    ),
    (
        parts,
        [
            (({"a": zeros(2), "b": zeros(2)}, [zeros(2, dtype=L)], (1, "x")), {}),
            (({"a": zeros(2)}, [zeros(3, dtype=L)], (1, "x")), {}),
            (({"a": zeros(2)}, [zeros(2)], (1, "x")), {}),
            (({1: zeros(2)}, [zeros(2, dtype=L)], (1, "x")), {}),
            (({"a": zeros(2)}, [zeros(2, dtype=L)], (1, 1)), {}),
            (({"a": zeros(2)}, [], (1, "x")), {}),
        ],
    ),
    (
        leading,
        [
            ((zeros(2, 3, 4), np.zeros((2, 3, 4))), {}),
            ((zeros(2, 3, 4), np.zeros((3, 2, 4))), {}),
            ((zeros(4), np.zeros(4)), {}),
            ((zeros(4), np.zeros((4, 4))), {}),
            ((zeros(4), zeros(4)), {}),
        ],
    ),
    (shorter, [((zeros(3), zeros(2)), {}), ((zeros(4), zeros(3)), {}), ((zeros(3), zeros(1)), {})]),
    (many, [(((1, 2),), {}), (((1,) * (PARTS + 1),), {}), ((("x",) * (PARTS + 1),), {}), ((("x", "x"),), {})]),
]


def refuses(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        function(*args, **kwargs)
    except jaxtyping.TypeCheckError:
        return True
    return False


@pytest.mark.parametrize(("function", "calls"), CALLS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_verdict_is_that_of_a_check_without_memory(function: Any, calls: list[Any]) -> None:
    plain, once = (each(function, typechecker=beartype) for each in (plain_jaxtyped, jaxtyped))
    expected = [refuses(plain, *call) for call in calls]
    assert {True, False} == set(expected)
    for order in ([*range(len(calls))] * 2, [*reversed(range(len(calls)))]):  # whatever it saw before
        assert [refuses(once, *calls[i]) for i in order] == [expected[i] for i in order]


def test_a_result_that_turns_wrong_is_refused() -> None:
    lengths = iter([3, 3, 4, 3])

    def same(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return zeros(next(lengths))

    once = jaxtyped(same, typechecker=beartype)
    assert [refuses(once, (zeros(3),), {}) for _ in range(4)] == [False, False, True, False]


def test_a_refused_call_does_not_run_and_a_passed_one_runs_once() -> None:
    seen: list[int] = []

    def note(x: Float[Tensor, " n"]) -> int:
        seen.append(len(x))
        return len(x)

    once = jaxtyped(note, typechecker=beartype)
    assert [once(zeros(n)) for n in (2, 2, 5)] == [2, 2, 5]
    assert refuses(once, (zeros(2, 2),), {})
    assert seen == [2, 2, 5]


def test_functions_inside_functions_keep_what_they_close_over() -> None:
    def adder(n: int) -> Any:
        def add(x: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
            return x + n

        return jaxtyped(add, typechecker=beartype)

    before = len(MEMORIES)
    adders = [adder(n) for n in (1, 2)]
    assert len(MEMORIES) == before + 1
    assert [float(add(zeros(1))) for add in (*adders, *adders)] == [1, 2, 1, 2]
    assert all(refuses(add, (zeros(1, 1),), {}) for add in adders)


def test_what_a_check_only_samples_is_sampled_every_time() -> None:
    def total(xs: list[int]) -> int:
        return len(xs)

    def count(xs: tuple[int, ...]) -> int:
        return len(xs)

    for function, mixed in ((total, [1, "x"]), (count, (1, "x"))):
        once = jaxtyped(function, typechecker=beartype)
        assert any(refuses(once, (mixed,), {}) for _ in range(100))  # 1 - 2^-100
        assert not refuses(once, ([1, 2] if function is total else (1, 2),), {})


def test_a_generator_is_checked_where_it_is_made() -> None:
    def rows(x: Float[Tensor, "n d"]) -> Iterator[Tensor]:
        yield from x

    once = jaxtyped(rows, typechecker=beartype)
    assert [len(list(once(zeros(n, 2)))) for n in (3, 3, 4)] == [3, 3, 4]
    assert refuses(once, (zeros(3),), {})


def test_the_library_is_checked() -> None:
    good, bad = np.zeros(3), np.zeros(4)
    for _ in range(3):
        assert len(divide(good, good, otherwise=0.0)) == 3
        assert refuses(divide, (good, bad), {"otherwise": 0.0})
        SparseRows(zeros(2), zeros(2, dtype=L), zeros(3, dtype=L), (2, 5))
        assert refuses(SparseRows, (zeros(2), zeros(3, dtype=L), zeros(3, dtype=L), (2, 5)), {})
    wrapped = (divide, weighted_bags, SparseRows.__init__, SparseRows.from_topk.__func__, SuperpositionSource.stream)
    assert all("checked_once" in vars(function) for function in wrapped)
