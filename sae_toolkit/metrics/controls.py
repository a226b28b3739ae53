"""What chance scores and what perfect knowledge scores: dictionaries nobody trained, judged like an SAE.

Floors: random directions, rows of the data, the neurons themselves, principal and independent components, non-negative
factors, spherical k-means, shuffled data, an untrained SAE. Ceilings: the true directions, read out linearly, by
pursuit and by the lasso.
"""

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.metrics.components import both_signs, ica_directions, kmeans_directions, nmf_directions, pca_directions
from sae_toolkit.metrics.control_store import ControlStore
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE, SAEOutput
from sae_toolkit.saes.coders import Coder, LinearTopK, MatchingPursuit, NonnegativeLasso, RefittedTopK
from sae_toolkit.saes.normalise import Normaliser
from sae_toolkit.saes.weights_hash import tensor_sha256
from sae_toolkit.seeding import generator_for

FLOOR = "floor/random"
"""The floor of every `Score` unless another one is stated."""
CEILING = "ceiling/true_omp_2k"
"""Perfect knowledge of the directions and room for more than k of them, since real samples vary in how many fire."""

NONNEGATIVE = "floor/nmf"
FLOORS = (
    FLOOR,
    "floor/data_rows",
    "floor/shuffled_rows",
    "floor/neurons",
    "floor/pca",
    "floor/ica",
    NONNEGATIVE,
    "floor/kmeans",
)
"""All there are, in the order of their rows."""

CALIBRATED_AT_ONCE = 1024
"""Rows of the sample, so that pre-activations of a wide SAE stay small."""

CHOSEN_LIKE_AN_SAE = (FLOOR, "floor/neurons", "floor/pca", "floor/kmeans")
"""Floors that are also shown with a top-k choice, the kind of encoder an SAE has, beside the stronger pursuit."""


class FixedDictionary(AbstractDictionary):
    """Fixed unit directions D, an offset o and a coder: x is approximated by z D + o, with z = coder(x - o)."""

    def __init__(
        self, directions: Float[Tensor, "w d_in"], *, coder: Coder, offset: Float[Tensor, " d_in"] | None = None
    ) -> None:
        self.d_sae, self.d_in = directions.shape
        length = directions.norm(dim=1, keepdim=True)
        self.directions = (directions / torch.where(length > 0, length, 1.0)).detach()
        self.offset = torch.zeros_like(self.directions[0]) if offset is None else offset.detach()
        self.coder = coder

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        centred = x.reshape(-1, self.d_in).to(self.directions.dtype) - self.offset
        latents = self.coder.encode(centred, self.directions).reshape_batch(x.shape[:-1])
        return SAEOutput(reconstruction=latents.combine(self.directions) + self.offset, latent_acts=latents)

    def decoder_directions(self) -> Float[Tensor, "w d_in"]:
        return self.directions

    def identity(self) -> dict[str, Any]:
        hashes = {"directions": tensor_sha256(self.directions), "offset": tensor_sha256(self.offset)}
        return {"kind": "FixedDictionary", **hashes, "coder": repr(self.coder)}


class InUnits(AbstractDictionary):
    """A dictionary of normalised activations, asked with raw ones: where several sites must count alike."""

    def __init__(self, inner: AbstractDictionary, units: Normaliser) -> None:
        self.inner, self.units, self.d_in, self.d_sae = inner, units, inner.d_in, inner.d_sae

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        output = self.inner.forward(self.units.normalise(x))
        return output._replace(reconstruction=self.units.denormalise(output.reconstruction))

    def decoder_directions(self) -> Float[Tensor, "w d_in"]:
        return self.units.denormalise_difference(self.inner.decoder_directions())

    def identity(self) -> dict[str, Any]:
        kept = {name: tensor_sha256(tensor) for name, tensor in self.units.state_dict().items()}
        return {"kind": "InUnits", "inner": self.inner.identity(), "units": kept}


def random_directions(w: int, d_in: int, *, seed: int) -> Float[Tensor, "w d_in"]:
    """Uniform on the sphere."""
    directions = torch.randn(w, d_in, generator=generator_for(seed, "random control"))
    length: Tensor = directions.norm(dim=1, keepdim=True)
    return directions / length


def unlearned_dictionaries(
    sample: Float[Tensor, "batch d_in"], w: int, k: Collection[int], *, seed: int = 0
) -> dict[str, AbstractDictionary]:
    """Random directions, data rows, principal components, k-means and neurons, each with top k for every k."""
    floors = floor_directions(sample, w, seed=seed, leave_out=("floor/ica",))
    mean = sample.mean(0)
    built: dict[str, AbstractDictionary] = {}
    for name, rows in floors.items():
        for each in k:
            shown = name.removeprefix("floor/").replace("_", " ")
            built[f"{shown} k={each}"] = FixedDictionary(rows, coder=RefittedTopK(each), offset=mean)
    return built


def data_rows(sample: Float[Tensor, "batch d_in"], w: int, *, seed: int) -> Float[Tensor, "w d_in"]:
    """Centred samples, drawn without replacement; samples at the mean have no direction and are passed over."""
    centred = sample - sample.mean(0)
    usable = centred[centred.norm(dim=1) > 0]
    if len(usable) < w:
        raise ValueError(f"data_rows: {w} rows asked, but the sample has {len(usable)} usable ones. Give a larger one.")
    return usable[torch.randperm(len(usable), generator=generator_for(seed, "data row control"))[:w]]


def shuffled_rows(sample: Float[Tensor, "batch d_in"], w: int, *, seed: int) -> Float[Tensor, "w d_in"]:
    """Rows of the data after each dimension was permuted on its own: its marginals without its structure."""
    generator = generator_for(seed, "shuffled control")
    order = torch.rand(sample.shape, generator=generator).argsort(dim=0)
    return data_rows(sample.gather(0, order), w, seed=seed)


def untrained(
    sae: AbstractSAE,
    sample: Float[Tensor, "batch d_in"],
    *,
    seed: int,
    target: Float[Tensor, "batch d_out"] | None = None,
) -> AbstractSAE:
    """The same SAE freshly initialised: only the normalisers and b_dec (statistics of the data) are kept.

    What a transcoder has beside its latents is fitted to its `target`, as it is before training.
    """
    initial = type(sae)(sae.config, seed=seed)
    initial.normaliser = copy.deepcopy(sae.normaliser)
    initial.output_normaliser = copy.deepcopy(sae.output_normaliser)
    initial.to(sae.b_dec.device)
    with torch.no_grad():
        initial.b_dec.copy_(sae.b_dec)
        if target is not None:
            x, y = sample.to(sae.b_dec.device), target.to(sae.b_dec.device)
            initial.fit_bypass_(initial.normaliser.normalise(x), initial.target_normaliser.normalise(y))
        initial.eval()
        initial.calibrate_(rows.to(sae.b_dec.device) for rows in torch.split(sample, CALIBRATED_AT_ONCE))
    return initial


def floor_directions(
    sample: Float[Tensor, "batch d_in"],
    w: int,
    *,
    seed: int,
    leave_out: Collection[str] = (),
    store: ControlStore | None = None,
) -> dict[str, Float[Tensor, "_ d_in"]]:
    """The directions behind every floor of one width, by name: what takes time, and does not depend on sparsity.

    Neurons, principal and independent components come with both signs and may be fewer than w; non-negative factors
    exist only where no activation is negative. `leave_out` names floors not worth their time (ICA needs minutes above
    d_in = 500); what is in the `store` already is not built again.
    """
    builders: dict[str, Callable[[], Tensor]] = {
        FLOOR: lambda: random_directions(w, sample.shape[1], seed=seed),
        "floor/data_rows": lambda: data_rows(sample, w, seed=seed),
        "floor/shuffled_rows": lambda: shuffled_rows(sample, w, seed=seed),
        "floor/neurons": lambda: both_signs(torch.eye(sample.shape[1]), w),
        "floor/pca": lambda: pca_directions(sample, w),
        "floor/ica": lambda: ica_directions(sample, w, seed=seed),
        NONNEGATIVE: lambda: nmf_directions(sample, w, seed=seed),
        "floor/kmeans": lambda: kmeans_directions(sample, w, seed=seed),
    }
    unknown = [name for name in leave_out if name not in builders]
    if unknown:
        raise ValueError(f"floor_directions: leave_out={unknown} given; choose among {', '.join(builders)}.")
    applies = [name for name in builders if name != NONNEGATIVE or float(sample.min()) >= 0]
    wanted = {name: builders[name] for name in applies if name not in leave_out}
    if store is None:
        return {name: build() for name, build in wanted.items()}
    made_from = {"sample": tensor_sha256(sample), "width": w, "seed": seed}
    return {name: store.directions({**made_from, "name": name}, build) for name, build in wanted.items()}


def standard_controls(
    sae: AbstractDictionary,
    sample: Float[Tensor, "batch d_in"],
    *,
    k: int,
    seed: int,
    floors: Mapping[str, Float[Tensor, "_ d_in"]] | None = None,
    directions: Float[Tensor, "n_features d_in"] | None = None,
    bias: Float[Tensor, " d_in"] | None = None,
    lasso_penalty: float = 0.1,
    units: Normaliser | None = None,
) -> dict[str, AbstractDictionary]:
    """Floors as wide as the SAE and, where the truth is known, ceilings; keys are "floor/..." and "ceiling/...".

    Floors express x - mean by non-negative pursuit with k atoms, the best that is commonly done with a dictionary: a
    linear read-out would make straw men of them. Some also come "by top-k", the kind of choice that an SAE makes.
    `floors` are ready `floor_directions` of this width; `bias` is what the world adds to every sample; `lasso_penalty`
    is in units of its coefficients. With `units`, which several sites need, floors are made in normalised units.
    """
    sample = sample.detach().cpu().float()
    seen = sample if units is None else units.normalise(sample)
    mean = seen.mean(0)
    floors = floor_directions(seen, sae.d_sae, seed=seed) if floors is None else floors
    controls: dict[str, AbstractDictionary] = {
        name: FixedDictionary(rows, coder=MatchingPursuit(k), offset=mean) for name, rows in floors.items()
    }
    controls |= {
        f"{name} by top-k": FixedDictionary(rows, coder=RefittedTopK(k), offset=mean)
        for name, rows in floors.items()
        if name in CHOSEN_LIKE_AN_SAE
    }
    if units is not None:
        controls = {name: InUnits(control, units) for name, control in controls.items()}
    if isinstance(sae, AbstractSAE):
        controls["floor/untrained"] = untrained(sae, sample, seed=seed)
    if directions is not None:
        controls |= ceilings(directions, k=k, bias=bias, lasso_penalty=lasso_penalty)
    return controls


def ceilings(
    directions: Float[Tensor, "n_features d_in"],
    *,
    k: int,
    bias: Float[Tensor, " d_in"] | None = None,
    lasso_penalty: float = 0.1,
) -> dict[str, AbstractDictionary]:
    """The true directions with four coders, from the best tied linear encoder to near-exact inference."""
    coders = {
        "ceiling/true_topk": LinearTopK(k),
        "ceiling/true_omp": MatchingPursuit(k),
        CEILING: MatchingPursuit(2 * k),
        "ceiling/true_lasso": NonnegativeLasso(lasso_penalty),
    }
    return {name: FixedDictionary(directions, coder=coder, offset=bias) for name, coder in coders.items()}
