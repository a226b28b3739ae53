"""Activations of a known world, made on the fly: every batch comes with the coefficients behind it."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationStream, KnownFeatures, Split
from sae_toolkit.activations.stream_state import check_identity
from sae_toolkit.ground_truth.world import World, WorldSample
from sae_toolkit.seeding import generator_for

Sampling = Callable[[int, torch.Generator], WorldSample]
"""Draws so many samples, with the truth behind them."""


class SuperpositionSource(KnownFeatures):
    """Fresh samples of a world without end, in both splits. Batch i is a function of (world, seed, split, size, i)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.description: dict[str, Any] = {"name": "SuperpositionSource", "world": world.describe()}

    @property
    def d_in(self) -> int:
        return self.world.d_in

    @property
    def directions(self) -> Float[Tensor, "n_features d_in"]:
        return self.world.directions

    @property
    def bias(self) -> Float[Tensor, " d_in"]:
        return self.world.bias

    @property
    def hierarchy_pairs(self) -> Int[Tensor, "n_pairs 2"] | None:
        return None if self.world.hierarchy is None else self.world.hierarchy.pairs()

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "SuperpositionStream":
        identity = {
            "source": "SuperpositionSource",
            "world_sha256": self.description["world"]["content_sha256"],
            "seed": seed,
            "split": split,
            "batch_size": batch_size,
        }
        return SuperpositionStream(self.world.sample, identity)

    def describe(self) -> dict[str, Any]:
        return deepcopy(self.description)


class SuperpositionStream(ActivationStream):
    """Endless batches; the state is what the stream is of, and the number of the next batch."""

    def __init__(self, sample: Sampling, identity: Mapping[str, Any]) -> None:
        """`identity` holds "source" (a class's name), "seed", "split", "batch_size" and more."""
        name, batch_size, split = (identity[key] for key in ("source", "batch_size", "split"))
        if batch_size < 1:
            raise ValueError(f"{name}.stream: batch_size={batch_size} asked, but at least 1 is needed.")
        if split not in ("train", "eval"):
            raise ValueError(f'{name}.stream: split={split!r} asked, but it is "train" or "eval".')
        self.sample, self.identity = sample, dict(identity)
        self.next_batch = 0

    def __next__(self) -> ActivationBatch:
        # train takes the even generators and eval the odd ones, so that no seed and no index makes them meet
        index = 2 * self.next_batch + (self.identity["split"] == "eval")
        generator = generator_for(self.identity["seed"], "superposition samples", index)
        sample = self.sample(self.identity["batch_size"], generator)
        self.next_batch += 1
        return ActivationBatch(activations=sample.activations, coefficients=sample.coefficients)

    def state_dict(self) -> dict[str, Any]:
        return {**self.identity, "next_batch": self.next_batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_identity("SuperpositionStream", self.identity, state, position="next_batch")
        self.next_batch = state["next_batch"]
