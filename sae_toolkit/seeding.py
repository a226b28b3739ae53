"""Private random generators: every random number of the toolkit comes from here, none from the global generator."""

import hashlib

import torch


def generator_for(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator that depends on nothing but its three arguments.

    `purpose` names what is drawn ("train data", "initialisation", ...), so that drawing one number more for one
    purpose never moves another. For one (seed, purpose) all indices below 2**32 give different generators: torch's CPU
    engine keeps only 32 bits of a seed, so a hash of the index could collide, a bijection cannot.
    """
    if index < 0 or index >= 2**32:
        raise ValueError(f"generator_for: index={index} asked, but it must lie in [0, 2**32).")
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    base = int.from_bytes(digest[:4], "little")
    return torch.Generator().manual_seed(mix_32_bits((base + index) % 2**32))


def mix_32_bits(value: int) -> int:
    """Bijection of the 32-bit integers that spreads neighbours apart (the finaliser of MurmurHash3, A. Appleby)."""
    value ^= value >> 16
    value = (value * 0x85EBCA6B) % 2**32
    value ^= value >> 13
    value = (value * 0xC2B2AE35) % 2**32
    return value ^ (value >> 16)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for a component that takes one itself, independent of the other purposes of the same run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:6], "little")
