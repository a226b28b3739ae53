"""Classical decompositions of a data sample into directions: principal, independent, non-negative, clustered."""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.metrics.bootstrap import numpy_generator
from sae_toolkit.seeding import generator_for

KMEANS_ITERATIONS = 50


def both_signs(components: Float[Tensor, "n d_in"], w: int) -> Float[Tensor, "n_signed d_in"]:
    """The leading components and their negatives, at most w rows: latents are non-negative."""
    components = components[: (w + 1) // 2]
    return torch.cat([components, -components])[:w]


def pca_directions(sample: Float[Tensor, "batch d_in"], w: int) -> Float[Tensor, "n_signed d_in"]:
    """Principal components +-, by decreasing variance."""
    centred = (sample - sample.mean(0)).double()
    _, axes = torch.linalg.eigh(centred.T @ centred)
    return both_signs(axes.T.flip(0).to(sample.dtype), w)


def ica_directions(sample: Float[Tensor, "batch d_in"], w: int, *, seed: int) -> Float[Tensor, "n_signed d_in"]:
    """Independent components +- (columns of FastICA's mixing matrix; Hyvarinen & Oja 2000).

    Where FastICA stops before converging its last estimate is used: superposed data has no exact solution.
    """
    from sklearn.decomposition import FastICA  # noqa: PLC0415  (slow import)
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    state = int(numpy_generator(seed, "ICA control").integers(2**31))
    ica = FastICA(min(*sample.shape), whiten="unit-variance", max_iter=200, tol=1e-3, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(sample.double().numpy())
    mixing = torch.from_numpy(ica.mixing_.T.copy()).to(sample.dtype)
    return both_signs(mixing / mixing.norm(dim=1, keepdim=True), w)


def nmf_directions(sample: Float[Tensor, "batch d_in"], w: int, *, seed: int) -> Float[Tensor, "w d_in"]:
    """Parts of non-negative matrix factorisation (Lee & Seung 1999; online, Lefevre et al. 2011), of length 1.

    Only for activations that are nowhere negative, such as neurons after a ReLU. A part that came out empty is zero.
    """
    from sklearn.decomposition import MiniBatchNMF  # noqa: PLC0415  (slow import)
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    lowest = float(sample.min())
    if lowest < 0:
        raise ValueError(f"nmf_directions: activations down to {lowest:.3g} given, but NMF takes none below 0.")
    state = int(numpy_generator(seed, "NMF control").integers(2**31))
    nmf = MiniBatchNMF(w, init="random", batch_size=1024, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        nmf.fit(sample.double().numpy())
    parts = torch.from_numpy(nmf.components_.copy()).to(sample.dtype)
    length = parts.norm(dim=1, keepdim=True)
    return parts / torch.where(length > 0, length, 1.0)


def kmeans_directions(sample: Float[Tensor, "batch d_in"], w: int, *, seed: int) -> Float[Tensor, "w d_in"]:
    """Spherical k-means (Dhillon & Modha 2001): centres maximise the sum of cosines with the samples they own.

    Samples are centred and scaled to length 1, those at the mean left out; a centre that owns nothing moves to the
    sample that is represented worst.
    """
    centred = sample - sample.mean(0)
    length = centred.norm(dim=1, keepdim=True)
    points = (centred / length)[length.squeeze(1) > 0]
    if len(points) < w:
        raise ValueError(f"kmeans_directions: w={w} centres asked of {len(points)} usable samples. Give more samples.")
    centres = spread_start(points, w, seed=seed)
    owner: Int[Tensor, " n_points"] = torch.full((len(points),), -1)
    for _ in range(KMEANS_ITERATIONS):
        cosine, nearest = nearest_centres(points, centres)
        if torch.equal(nearest, owner):
            break
        owner = nearest
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        empty = (sums.norm(dim=1) == 0).nonzero().squeeze(1)
        sums[empty] = points[cosine.argsort()[: len(empty)]]
        centres = sums / sums.norm(dim=1, keepdim=True)
    return centres


def spread_start(points: Float[Tensor, "n d_in"], w: int, *, seed: int) -> Float[Tensor, "w d_in"]:
    """k-means++ (Arthur & Vassilvitskii 2007) with squared distance 2 - 2 cos: next centres lie far from all others."""
    generator = generator_for(seed, "k-means control")
    first = int(torch.randint(len(points), (), generator=generator))
    chosen = [first]
    distance = (2 - 2 * points @ points[first]).clamp_min(0)
    for _ in range(w - 1):
        weights = distance.double().cumsum(0)
        drawn = torch.rand((), generator=generator, dtype=torch.float64) * weights[-1]
        chosen.append(min(int(torch.searchsorted(weights, drawn, right=True)), len(points) - 1))
        distance = torch.minimum(distance, (2 - 2 * points @ points[chosen[-1]]).clamp_min(0))
    return points[chosen]


def nearest_centres(
    points: Float[Tensor, "n d_in"], centres: Float[Tensor, "w d_in"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Cosine with, and number of, the nearest centre; in chunks, since [n, w] may be large."""
    best = [(chunk @ centres.T).max(dim=1) for chunk in torch.split(points, max(1, 2**24 // len(centres)))]
    return torch.cat([b.values for b in best]), torch.cat([b.indices for b in best])
