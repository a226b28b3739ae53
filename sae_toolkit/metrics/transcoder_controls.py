"""What chance predicts of another site, and what a linear map does: the controls of transcoders.

A floor reads fixed directions of what the transcoder reads, keeps the k largest and predicts the target with the
decoder that fits best on the train split; so chance has every advantage but the directions. What needs no latents, the
best linear map says. The ceiling is the transcoder's own decoder, put together by pursuit on the target itself: what k
of its latents could write at best if they saw the answer. One with a skip connection has none, because its latents
write what the skip leaves over.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.metrics.controls import FixedDictionary, untrained
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE, SAEOutput
from sae_toolkit.saes.coders import Coder, LinearTopK, MatchingPursuit
from sae_toolkit.saes.weights_hash import tensor_sha256
from sae_toolkit.sparse_rows import SparseRows

LINEAR_MAP = "floor/linear_map"
"""All dimensions of what is read at once, as no sparse dictionary has them; named a floor because nobody learned it."""

MOST_STEPS = 200
"""Of conjugate gradients; 20 to 60 are usual."""
CONVERGED = 1e-4
"""Relative length of the remaining gradient at which a decoder counts as fitted."""


class FixedTranscoder(AbstractDictionary):
    """y is predicted by z W + o with z = coder(x - centre) in fixed unit directions of x."""

    def __init__(
        self, reads: FixedDictionary, writes: Float[Tensor, "w d_out"], offset: Float[Tensor, " d_out"]
    ) -> None:
        """`reads`: the directions, their coder, and the centre of x as its offset."""
        self.reads, self.writes, self.offset = reads, writes, offset
        self.d_in, self.d_sae = reads.d_in, reads.d_sae

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        latents = self.reads.forward(x).sparse_latents()
        return SAEOutput(latents.combine(self.writes) + self.offset, latents)

    def decoder_directions(self) -> Float[Tensor, "w d_out"]:
        return self.writes

    def identity(self) -> dict[str, Any]:
        hashes = {"writes": tensor_sha256(self.writes), "offset": tensor_sha256(self.offset)}
        return {"kind": "FixedTranscoder", "reads": self.reads.identity(), **hashes}


class LinearMap(AbstractDictionary):
    """y is predicted by (x - centre) W + o; its latents are the coordinates of x - centre, all of them."""

    def __init__(self, x: Float[Tensor, "n d_in"], y: Float[Tensor, "n d_out"]) -> None:
        """The ridge regression of y on x, with a penalty of one sample of mean length."""
        self.centre, self.offset = x.mean(0), y.mean(0)
        a, b = (x - self.centre).double(), (y - self.offset).double()
        gram = a.T @ a + a.square().mean() * torch.eye(x.shape[1], dtype=a.dtype)
        self.writes: Tensor = torch.linalg.solve(gram, a.T @ b).to(x.dtype)
        self.d_in = self.d_sae = x.shape[1]

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        coordinates = x - self.centre
        return SAEOutput(coordinates @ self.writes + self.offset, coordinates)

    def decoder_directions(self) -> Float[Tensor, "d_in d_out"]:
        return self.writes

    def identity(self) -> dict[str, Any]:
        hashes = {name: tensor_sha256(getattr(self, name)) for name in ("centre", "offset", "writes")}
        return {"kind": "LinearMap", **hashes}


def fitted_transcoder(
    directions: Float[Tensor, "w d_in"], x: Float[Tensor, "n d_in"], y: Float[Tensor, "n d_out"], *, coder: Coder
) -> FixedTranscoder:
    """The decoder that predicts y best from the coder's latents of x - mean."""
    reads = FixedDictionary(directions, coder=coder, offset=x.mean(0))
    latents = reads.forward(x).sparse_latents()
    writes = ridge_decoder(latents, y - y.mean(0))
    return FixedTranscoder(reads, writes, (y - latents.combine(writes)).mean(0))


def ridge_decoder(z: SparseRows, y: Float[Tensor, "n d_out"]) -> Float[Tensor, "w d_out"]:
    """argmin_W ||z W - y||^2 + r ||W||^2 by conjugate gradients, one run for each column of y.

    r is the mean square of a nonzero latent: what one more sample of each latent would weigh, on which it predicts 0.
    """
    ridge = z.values.square().mean() if z.values.numel() else z.values.new_ones(())

    def curved(W: Tensor) -> Tensor:
        return z.places.column_sums(z.values, z.combine(W)) + ridge * W

    left = z.places.column_sums(z.values, y)
    W, step, lengths = torch.zeros_like(left), left, left.square().sum(0)
    enough = CONVERGED**2 * lengths
    for _ in range(MOST_STEPS):
        if bool((lengths <= enough).all()):
            break
        changed = curved(step)
        share = lengths / (step * changed).sum(0).clamp_min(torch.finfo(y.dtype).tiny)
        W, left = W + share * step, left - share * changed
        shorter = left.square().sum(0)
        step = left + shorter / lengths.clamp_min(torch.finfo(y.dtype).tiny) * step
        lengths = shorter
    return W


def transcoder_floors(
    sae: AbstractSAE,
    x: Float[Tensor, "n d_in"],
    y: Float[Tensor, "n d_out"],
    *,
    k: int,
    seed: int,
    floors: Mapping[str, Float[Tensor, "_ d_in"]],
) -> dict[str, AbstractDictionary]:
    """Controls that read x and predict y, raw train-split samples; `floors` are `floor_directions` of x."""
    fitted = {name: fitted_transcoder(rows, x, y, coder=LinearTopK(k)) for name, rows in floors.items()}
    return {**fitted, LINEAR_MAP: LinearMap(x, y), "floor/untrained": untrained(sae, x, seed=seed, target=y)}


def own_directions(sae: AbstractSAE, k: int) -> FixedDictionary:
    """The transcoder's decoder as a dictionary of the target, used by pursuit."""
    rows = sae.decoder_directions().detach().cpu()
    at_rest = sae.target_normaliser.denormalise(sae.b_dec.detach()).cpu()
    return FixedDictionary(rows, coder=MatchingPursuit(k), offset=at_rest)


def rebuilds(sae: AbstractSAE, x: Float[Tensor, "n d_in"]) -> bool:
    """Whether latents are all that it predicts with: no skip connection adds anything."""
    return not bool(sae.bypass(x[:1].to(sae.W_dec.device)).any())
