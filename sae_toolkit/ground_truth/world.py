"""A world whose features are known: directions, which fire, how strongly, and what else an activation holds."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_toolkit.ground_truth.firing import Firing
from sae_toolkit.ground_truth.hierarchy import Hierarchy, with_magnitudes
from sae_toolkit.ground_truth.magnitudes import Magnitudes
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts

Component = TypeVar("Component")

SCHEMA_VERSION = 1
"""Of the two files of a saved world; raised when an older reader could misread a newer file."""


class WorldSample(NamedTuple):
    """Samples of a world and the truth behind them."""

    activations: Float[Tensor, "n_samples d_in"]
    coefficients: SparseRows
    """`[n_samples n_features]`."""


class World:
    """activation = coefficients @ directions + bias + noise_std * N(0, 1); coefficients are sparse and not negative."""

    def __init__(
        self,
        *,
        directions: Float[Tensor, "n_features d_in"],
        firing: Firing,
        magnitudes: Magnitudes,
        hierarchy: Hierarchy | None = None,
        bias: Float[Tensor, " d_in"] | None = None,
        noise_std: float = 0.0,
        importance: Float[Tensor, " n_features"] | None = None,
    ) -> None:
        """`importance` is the weight of each feature in losses and metrics that average over features (default 1)."""
        self.directions = directions
        self.firing, self.magnitudes, self.hierarchy = firing, magnitudes, hierarchy
        self.bias = torch.zeros(self.d_in) if bias is None else bias
        self.noise_std = float(noise_std)
        self.importance = torch.ones(self.n_features) if importance is None else importance
        self.check()

    @property
    def n_features(self) -> int:
        return len(self.directions)

    @property
    def d_in(self) -> int:
        return self.directions.shape[1]

    def check(self) -> None:
        """All parts speak of the same features, and every number is finite."""
        given = {"firing": self.firing.n_features, "importance": len(self.importance)}
        if self.magnitudes.n_features is not None:
            given["magnitudes"] = self.magnitudes.n_features
        if self.hierarchy is not None:
            given["hierarchy"] = self.hierarchy.n_features
        for part, n_features in given.items():
            if n_features != self.n_features:
                raise ValueError(
                    f"World: {self.n_features} directions given, but {part} for {n_features} features. Make them agree."
                )
        if self.bias.shape != (self.d_in,):
            raise ValueError(f"World: a bias of shape {tuple(self.bias.shape)} given, but d_in={self.d_in}.")
        for name in ("directions", "bias", "importance"):
            tensor = getattr(self, name)
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise ValueError(f"World: {name} ({tensor.dtype}) must be float32, every entry finite (no NaN).")
        lengths = self.directions.double().norm(dim=1)
        if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4):
            raise ValueError(
                f"World: directions with lengths from {lengths.min():.4g} to {lengths.max():.4g} given, but they must "
                "be unit vectors. Divide by their lengths and put the strength into the magnitudes."
            )
        if (self.importance < 0).any():
            raise ValueError("World: a negative importance given. Importances are weights, 0 or above.")
        if not (isfinite(self.noise_std) and self.noise_std >= 0):
            raise ValueError(f"World: noise_std={self.noise_std} given, but it must be finite and at least 0.")

    def sample_coefficients(self, n_samples: int, generator: torch.Generator) -> SparseRows:
        """True coefficients of fresh samples, `[n_samples n_features]`; every stored value is above 0."""
        if n_samples < 1:
            raise ValueError(f"World.sample_coefficients: n_samples={n_samples} asked, but at least 1 is needed.")
        draw = self.firing.draw(n_samples, generator)
        if self.hierarchy is None:
            everything = draw.among(torch.arange(self.n_features))
            rows, features, values = with_magnitudes(*everything, self.magnitudes, generator)
        else:
            rows, features, values = self.hierarchy.grow(draw, self.magnitudes, generator)
            order = (rows * self.n_features + features).argsort()
            rows, features, values = rows[order], features[order], values[order]
        offsets = offsets_of_counts(torch.bincount(rows, minlength=n_samples))
        return SparseRows(values=values, indices=features, offsets=offsets, shape=(n_samples, self.n_features))

    def sample(self, n_samples: int, generator: torch.Generator) -> WorldSample:
        """Activations with their coefficients."""
        coefficients = self.sample_coefficients(n_samples, generator)
        activations = coefficients.combine(self.directions) + self.bias
        if self.noise_std > 0:
            activations = activations + self.noise_std * torch.randn(activations.shape, generator=generator)
        return WorldSample(activations, coefficients)

    def describe(self) -> dict[str, Any]:
        """JSON-ready provenance; `content_sha256` is equal for worlds with equal samples, different otherwise."""
        return {
            "name": "World",
            "n_features": self.n_features,
            "d_in": self.d_in,
            "firing": self.firing.describe(),
            "magnitudes": type(self.magnitudes).__name__,
            "hierarchy": None if self.hierarchy is None else self.hierarchy.describe(),
            "bias_norm": float(self.bias.double().norm()),
            "noise_std": self.noise_std,
            "importance_sum": float(self.importance.double().sum()),
            "content_sha256": content_sha256(*self.parts()),
        }

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Everything a world is made of, as JSON-ready settings and named tensors."""
        settings: dict[str, Any] = {"noise_std": self.noise_std}
        tensors = {"directions": self.directions, "bias": self.bias, "importance": self.importance}
        for name in ("firing", "magnitudes", "hierarchy"):
            component = getattr(self, name)
            values = {} if component is None else {f.name: getattr(component, f.name) for f in fields(component)}
            chosen = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
            settings[name] = None if component is None else {"name": type(component).__name__, "settings": chosen}
            tensors |= {f"{name}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
        return settings, {key: value.detach().contiguous() for key, value in sorted(tensors.items())}

    def save(self, folder: str | Path) -> None:
        """Writes `world.safetensors` and `world.json`; the second last, so that a broken save is noticed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings, tensors = self.parts()
        index = {"schema_version": SCHEMA_VERSION, "content_sha256": content_sha256(settings, tensors), **settings}
        save_file({key: value.clone() for key, value in tensors.items()}, folder / "world.safetensors")
        (folder / "world.json").write_text(json.dumps(index, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "World":
        """The saved world: the same seed gives the same samples, bit for bit."""
        index, tensors = read_parts(Path(folder))
        try:
            noise_std, hierarchy = index["noise_std"], index["hierarchy"]
            firing = component_from("firing", index["firing"], tensors, Firing.models)
            magnitudes = component_from("magnitudes", index["magnitudes"], tensors, Magnitudes.models)
            forest = None
            if hierarchy is not None:
                forest = component_from("hierarchy", hierarchy, tensors, {"Hierarchy": Hierarchy})
            top = {key: tensors[key] for key in ("directions", "bias", "importance")}
        except (KeyError, TypeError) as error:
            raise ValueError(f"World.load: {folder} lacks or misplaces {error}. Save the world again.") from error
        return cls(firing=firing, magnitudes=magnitudes, hierarchy=forest, noise_std=noise_std, **top)


def component_from(
    kind: str, saved: Mapping[str, Any], tensors: Mapping[str, Tensor], models: Mapping[str, type[Component]]
) -> Component:
    """One part of a world from its saved name, settings and tensors."""
    name = saved["name"]
    if name not in models:
        raise ValueError(
            f"World.load: {kind} model {name!r} asked for, but only {sorted(models)} are known. Import its file first."
        )
    own = {key.removeprefix(f"{kind}."): value for key, value in tensors.items() if key.startswith(f"{kind}.")}
    return models[name](**saved["settings"], **own)


def read_parts(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Both files of a saved world, checked against schema version and content hash."""
    for name in ("world.json", "world.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"World.load: {folder / name} does not exist. Give a folder written by World.save.")
    try:
        index = json.loads((folder / "world.json").read_text())
        tensors = load_file(folder / "world.safetensors")
    except (json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(
            f"World.load: the files in {folder} cannot be read ({error}). Save the world again."
        ) from error
    version = index.get("schema_version") if isinstance(index, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"World.load: schema version {version} given, this release reads {SCHEMA_VERSION}.")
    settings = {key: value for key, value in index.items() if key not in ("schema_version", "content_sha256")}
    tensors = dict(sorted(tensors.items()))
    given = content_sha256(settings, tensors)
    if given != index.get("content_sha256"):
        raise ValueError(f"World.load: the content of {folder} has SHA-256 {given}, not the one saved with it.")
    return settings, tensors


def content_sha256(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Of every setting and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in tensors.items():
        digest.update(f"\n{name}/{tensor.dtype}/{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().data)
    return digest.hexdigest()
