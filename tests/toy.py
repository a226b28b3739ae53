"""What the tests share: a source whose batches are a pure function of their index, and small SAEs of every variant."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from sae_toolkit import AbstractSAE, TrainingSignals
from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream, Split
from sae_toolkit.saes.normalise import NormaliserName
from sae_toolkit.seeding import generator_for

D_IN, D_SAE, K = 8, 16, 3
SMALL = {"d_in": D_IN, "d_sae": D_SAE, "k": K, "wanted_l0": 3.0, "d_out": D_IN, "site_widths": (3, 5)}
NORMALISERS = get_args(NormaliserName)


SHIPPED = {
    "AbsTopKSAE",
    "BatchTopKSAE",
    "GatedSAE",
    "GroupMaxSAE",
    "JumpReluSAE",
    "LpSAE",
    "MatchingPursuitSAE",
    "MatryoshkaBatchTopKSAE",
    "MatryoshkaTopKSAE",
    "MultiTopKSAE",
    "OrthogonalPursuitSAE",
    "ReluCrosscoder",
    "ReluSAE",
    "ReluTranscoder",
    "SkipTopKTranscoder",
    "TanhJumpReluSAE",
    "TanhReluSAE",
    "TargetL0JumpReluSAE",
    "TopKCrosscoder",
    "TopKSAE",
    "TopKTranscoder",
}


def shipped_variants() -> list[type[AbstractSAE]]:
    """Every registered variant of the package (not those that tests define)."""
    found = [sae for sae in AbstractSAE.variants.values() if sae.__module__.startswith("sae_toolkit.")]
    names = {sae.__name__ for sae in found}
    assert names >= SHIPPED, f"only {sorted(names)} are registered"
    return sorted(found, key=lambda sae: sae.__name__)


VARIANTS = shipped_variants()
PENALTY_VARIANTS = [sae for sae in VARIANTS if sae.has_sparsity_penalty]


def small_config(variant: type[AbstractSAE], **changes: Any) -> Any:
    """The smallest honest config of a variant, built from its fields; d_in=8, d_sae=16, and k=3 where there is a k."""
    chosen = {}
    for field in dataclasses.fields(variant.Config):
        if field.name in SMALL:
            chosen[field.name] = SMALL[field.name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise AssertionError(
                f"{variant.__name__}.Config.{field.name} has no default: add a small value to toy.SMALL"
            )
    if "site_widths" in chosen and "d_in" in changes:
        chosen["site_widths"] = (3, changes["d_in"] - 3)
    if "d_out" in chosen and "d_in" in changes:
        chosen["d_out"] = changes["d_in"]
    return variant.Config(**chosen | changes)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator_for(seed, "test data"))


def toy_batch(n: int, *, seed: int = 0) -> Tensor:
    return ToySource().sample(n, generator_for(seed, "toy batch"))


def working_sae(variant: type[AbstractSAE], *, normaliser: str = "mean_scalar", seed: int = 0, **changes: Any) -> Any:
    """An SAE in eval mode whose every parameter and buffer is away from its initial value."""
    sae = variant(small_config(variant, normaliser=normaliser, **changes), seed=seed)
    data = toy_batch(256, seed=99)
    sae.normaliser.fit_(data)
    sae.target_normaliser.fit_(data)
    with torch.no_grad():
        for i, parameter in enumerate(sae.parameters()):
            parameter.add_(gaussian(*parameter.shape, seed=1000 + i), alpha=0.1)
    sae.calibrate_([data])
    return sae.eval()


class ToySource(ActivationSource):
    """Sparse features in superposition plus an offset; batch i depends on (seed, split, i) alone."""

    def __init__(
        self,
        *,
        n_features: int = 12,
        d_in: int = D_IN,
        active: float = 2.4,
        bad_at: int | None = None,
        bad_value: float = float("inf"),
        delay: float = 0.0,
        note: str = "",
    ) -> None:
        self.n_features, self.width, self.probability = n_features, d_in, active / n_features
        self.bad_at, self.bad_value, self.delay, self.note = bad_at, bad_value, delay, note
        directions = torch.randn(n_features, d_in, generator=generator_for(5, "toy directions"))
        self.directions = directions / directions.norm(dim=1, keepdim=True) * 3
        self.offset = torch.linspace(-1, 2, d_in)

    @property
    def d_in(self) -> int:
        return self.width

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        fires = torch.rand(n, self.n_features, generator=generator) < self.probability
        strengths = 0.5 + torch.rand(n, self.n_features, generator=generator)
        noise = 0.05 * torch.randn(n, self.width, generator=generator)
        return (fires * strengths) @ self.directions + self.offset + noise

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "ToyStream":
        return ToyStream(self, batch_size, seed, split)

    def describe(self) -> dict[str, Any]:
        return {"kind": "toy", "d_in": self.width, "note": self.note}


class ToyStream(ActivationStream):
    def __init__(self, source: ToySource, batch_size: int, seed: int, split: Split) -> None:
        self.source, self.batch_size, self.seed, self.split, self.index = source, batch_size, seed, split, 0

    def __next__(self) -> ActivationBatch:
        x = self.source.sample(self.batch_size, generator_for(self.seed, f"toy {self.split}", self.index))
        if self.index == self.source.bad_at:
            x[1, 2] = self.source.bad_value
        self.index += 1
        time.sleep(self.source.delay)
        return ActivationBatch(activations=x, excluded={"toy reason": 2})

    def state_dict(self) -> dict[str, Any]:
        return {"index": self.index}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.index = state["index"]


def check_loss_and_gradients(sae: AbstractSAE, x: Tensor, signals: TrainingSignals, expected: Tensor) -> None:
    """The summed loss terms, and their gradient to every parameter, are those of a dense reference."""
    ours = torch.stack(list(sae.loss_terms(x, sae(x), signals).values())).sum()
    torch.testing.assert_close(ours, expected)
    parameters = dict(sae.named_parameters())
    wanted = torch.autograd.grad(expected, list(parameters.values()))
    given = torch.autograd.grad(ours, list(parameters.values()))
    for name, mine, theirs in zip(parameters, given, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, msg=lambda text, name=name: f"{name}: {text}")
