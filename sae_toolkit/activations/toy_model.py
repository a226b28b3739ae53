"""Hidden activations of a trained toy model: superposition that was learned, not drawn, with its truth.

Elhage et al. 2022, "Toy Models of Superposition" (arXiv 2209.10652), section "Demonstrating Superposition".
"""

from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.source import KnownFeatures, Split
from sae_toolkit.activations.superposition import SuperpositionStream
from sae_toolkit.ground_truth.toy_data import ToyData
from sae_toolkit.ground_truth.toy_model import REPRESENTED, ToyModels
from sae_toolkit.ground_truth.world import WorldSample, content_sha256
from sae_toolkit.sparse_rows import SparseRows


class ToyModelSource(KnownFeatures):
    """h = W x of one model on fresh data without end. Batch i is a function of (model, data, seed, split, size, i).

    Only features that the model represents (||W_i|| > .5) have a direction that anybody could find: they are the true
    features here, W_i / ||W_i|| with coefficient x_i ||W_i||, in the order of `feature_ids`. What is left of the others
    stays in the activations and counts as noise: `describe` says how large its share of sum_i E (x_i ||W_i||)^2 is.
    """

    def __init__(self, models: ToyModels, data: ToyData) -> None:
        """One instance, one cell: `models.select([i])` and `data.select(slice(i, i + 1))`."""
        refuse_unsuitable(models, data)
        self.models, self.data = models, data
        W = models.W.detach().cpu()[0]
        self.norms: Float[Tensor, " n_features"] = W.norm(dim=0)
        self.feature_ids = (self.norms > REPRESENTED).nonzero()[:, 0]
        """Which features of the model those of the source are."""
        if len(self.feature_ids) == 0:
            raise ValueError(
                f"ToyModelSource: a model given whose largest ||W_i|| is {float(self.norms.max()):.2f}, but a feature "
                f"is represented above {REPRESENTED}. Train it longer, or with features of unequal importance."
            )
        self.unit_rows: Float[Tensor, "n_represented d_in"] = (
            (W / self.norms.clamp_min(torch.finfo(W.dtype).tiny)).T[self.feature_ids].contiguous()
        )
        self.description = self.described(W)

    @property
    def d_in(self) -> int:
        return len(self.unit_rows[0])

    @property
    def directions(self) -> Float[Tensor, "n_represented d_in"]:
        directions: Tensor = self.unit_rows
        return directions

    @property
    def mean_active(self) -> float:
        """Represented features that fire per sample: the true L0."""
        return float(self.data.probabilities[0, self.feature_ids].double().sum())

    def sample(self, n_samples: int, generator: torch.Generator) -> WorldSample:
        """Hidden activations with the coefficients of the represented features."""
        x = self.data.sample(n_samples, generator)
        with torch.no_grad():
            hidden = self.models.hidden(x)[0].contiguous()
        strengths = x[0, :, self.feature_ids] * self.norms[self.feature_ids]
        return WorldSample(hidden, SparseRows.from_dense(strengths))

    def stream(self, batch_size: int, *, seed: int, split: Split) -> SuperpositionStream:
        identity = {
            "source": "ToyModelSource",
            "content_sha256": self.description["content_sha256"],
            "seed": seed,
            "split": split,
            "batch_size": batch_size,
        }
        return SuperpositionStream(self.sample, identity)

    def described(self, W: Float[Tensor, "n_hidden n_features"]) -> dict[str, Any]:
        """`describe`, computed once."""
        data = self.data
        settings = {"kind": self.models.config.kind, "correlated": data.correlated, "exclusive": data.exclusive}
        probabilities = data.probabilities.cpu()
        noise_share = unrepresented_share(self.norms, probabilities[0])
        return {
            "name": "ToyModelSource",
            "kind": self.models.config.kind,
            "n_features_of_model": W.shape[1],
            "n_features": len(self.feature_ids),
            "d_in": self.d_in,
            "mean_probability": float(probabilities.double().mean()),
            "mean_active": self.mean_active,
            "correlated": [list(group) for group in data.correlated],
            "exclusive": [list(group) for group in data.exclusive],
            "noise": f"features with a norm of at most {REPRESENTED}",
            "noise_share": noise_share,
            "content_sha256": content_sha256(settings, {"W": W, "probabilities": probabilities}),
        }

    def describe(self) -> dict[str, Any]:
        return deepcopy(self.description)


def unrepresented_share(norms: Float[Tensor, " n_features"], probabilities: Float[Tensor, " n_features"]) -> float:
    """Share of sum_i E (x_i ||W_i||)^2, where E x_i^2 = p_i / 3, that features without representation have."""
    power = probabilities.double() * norms.double().square()
    return float(power[norms <= REPRESENTED].sum() / power.sum())


def refuse_unsuitable(models: ToyModels, data: ToyData) -> None:
    """One model whose activations are a sum of directions with coefficients that are not negative."""
    kind = models.config.kind
    if models.config.n_instances != 1 or data.n_cells != 1:
        raise ValueError(
            f"ToyModelSource: {models.config.n_instances} models and data of {data.n_cells} cells given, but one of "
            "each is needed. Select them."
        )
    if data.n_features != models.config.n_features:
        raise ValueError(
            f"ToyModelSource: a model of {models.config.n_features} features and data of {data.n_features} given. "
            "Make them agree."
        )
    if kind not in ("linear", "relu_output") or data.signed:
        what = "signed data" if data.signed else f"kind={kind!r}"
        raise ValueError(
            f"ToyModelSource: {what} given, but activations must be a sum of directions with coefficients of at least "
            "0: a model of kind 'linear' or 'relu_output' on data that is not signed."
        )
