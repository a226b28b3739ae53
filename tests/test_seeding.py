"""Random numbers depend on seed, purpose and index alone."""

import pytest
import torch

from sae_toolkit.seeding import derived_seed, generator_for, mix_32_bits


def draw(*arguments: object) -> tuple[int, ...]:
    return tuple(torch.randint(2**60, (2,), generator=generator_for(*arguments)).tolist())


def test_the_same_arguments_give_the_same_numbers() -> None:
    assert draw(3, "data", 7) == draw(3, "data", 7)


def test_every_index_gives_another_generator() -> None:
    """20,000 indices: hashes to 32 bits would collide with probability 0.05, and 80,000 with 0.5."""
    assert len({draw(0, "data", index) for index in range(20_000)}) == 20_000


def test_seeds_and_purposes_are_separate() -> None:
    drawn = {draw(seed, purpose) for seed in (-1, 0, 1, 2**31, 2**63) for purpose in ("a", "b", "")}
    assert len(drawn) == 15


@pytest.mark.parametrize("index", [0, 2**32 - 1])
def test_the_ends_of_the_range_work(index: int) -> None:
    draw(0, "data", index)


@pytest.mark.parametrize("index", [-1, 2**32])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"index={index}"):
        generator_for(0, "data", index)


def test_mixing_is_a_bijection() -> None:
    """Inverted step by step: the constants are the modular inverses of the two multipliers."""

    def unmix(value: int) -> int:
        value ^= value >> 16
        value = value * pow(0xC2B2AE35, -1, 2**32) % 2**32
        value ^= (value >> 13) ^ (value >> 26)
        value = value * pow(0x85EBCA6B, -1, 2**32) % 2**32
        return value ^ (value >> 16)

    for value in (0, 1, 2, 12345, 2**31, 2**32 - 1, *range(10**9, 10**9 + 500)):
        assert unmix(mix_32_bits(value)) == value


def test_neighbouring_indices_are_uncorrelated() -> None:
    draws = torch.stack([torch.randn(2000, generator=generator_for(0, "data", index)) for index in range(20)])
    correlations = torch.corrcoef(draws).fill_diagonal_(0).abs()
    assert correlations.max() < 0.1  # 4.5 standard errors of 1 / sqrt(2000)


def test_derived_seeds_differ_by_purpose_and_seed() -> None:
    assert len({derived_seed(seed, purpose) for seed in range(5) for purpose in "abc"}) == 15
    assert derived_seed(1, "a") == derived_seed(1, "a")
