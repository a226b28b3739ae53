"""How a model packs its features into its hidden space (Elhage et al. 2022, arXiv 2209.10652).

W is `[... n_hidden n_features]` as in the paper: column i is the direction of feature i. All results are float64.
Sections: "Demonstrating Superposition" (represented, interference), "The Geometry of Superposition" (D*, D_i).
"""

from jaxtyping import Bool, Float, Float64
from torch import Tensor

from sae_toolkit.ground_truth.toy_model import REPRESENTED
from sae_toolkit.metrics.interference import dimensionality_of_rows, interference_of_rows


def gram(W: Float[Tensor, "*instances n_hidden n_features"]) -> Float64[Tensor, "*instances n_features n_features"]:
    """W^T W: what each feature (column) writes into the output of each feature (row) before the bias."""
    columns = W.detach().cpu().double()
    return columns.mT @ columns


def feature_cosines(
    W: Float[Tensor, "*instances n_hidden n_features"],
) -> Float64[Tensor, "*instances n_features n_features"]:
    """hat W_i . hat W_j; 0 in the row and the column of a feature without norm."""
    norms = feature_norms(W)
    units = W.detach().cpu().double() / norms.where(norms > 0, 1.0).unsqueeze(-2)
    return units.mT @ units


def feature_norms(W: Float[Tensor, "*instances n_hidden n_features"]) -> Float64[Tensor, "*instances n_features"]:
    """||W_i||."""
    norms: Tensor = W.detach().cpu().double().norm(dim=-2)
    return norms


def represented(
    W: Float[Tensor, "*instances n_hidden n_features"], *, threshold: float = REPRESENTED
) -> Bool[Tensor, "*instances n_features"]:
    """Which features have a norm above the threshold."""
    return feature_norms(W) > threshold


def frobenius_count(W: Float[Tensor, "*instances n_hidden n_features"]) -> Float64[Tensor, "*instances"]:
    """||W||_F^2: the number of represented features as long as every norm is near 0 or 1, and only then.

    The pentagon's norms of 1.16 make 5 features count as 6.7; with equal importances and no sparsity W^T W is any
    projector, which counts n_hidden although no single norm need exceed 1/2.
    """
    return W.detach().cpu().double().square().sum(dim=(-2, -1))


def dimensions_per_feature(W: Float[Tensor, "*instances n_hidden n_features"]) -> Float64[Tensor, "*instances"]:
    """D* = n_hidden / ||W||_F^2; infinite for W = 0."""
    return W.shape[-2] / frobenius_count(W)


def feature_dimensionality(
    W: Float[Tensor, "*instances n_hidden n_features"],
) -> Float64[Tensor, "*instances n_features"]:
    """D_i = ||W_i||^2 / sum_j (hat W_i . W_j)^2, 0 for a feature without norm.

    The share of a dimension that belongs to the feature, which Scherlis et al. 2022 (arXiv 2210.01892) call its
    capacity; sum_i D_i <= n_hidden, with equality for a tight frame.
    """
    return dimensionality_of_rows(W.mT)


def feature_interference(
    W: Float[Tensor, "*instances n_hidden n_features"],
) -> Float64[Tensor, "*instances n_features"]:
    """sum over j != i of (hat W_i . W_j)^2: squared, without the diagonal, one unit vector. Not a row sum of W^T W."""
    return interference_of_rows(W.mT)


def superposition_index(
    W: Float[Tensor, "*instances n_hidden n_features"], *, threshold: float = REPRESENTED
) -> Float64[Tensor, "*instances"]:
    """Represented features per hidden dimension.

    Above 1 some of them must share (no n_hidden dimensions hold more orthogonal directions); at or below 1 nothing
    need be in superposition, and `feature_interference` says whether something is.
    """
    return represented(W, threshold=threshold).sum(dim=-1).double() / W.shape[-2]


def plateau_scores(p: Float[Tensor, " n_models"], dimensions: Float[Tensor, " n_models"]) -> dict[str, float]:
    """D* over models of falling p.

    smallest_fall: of D* from one model to the next, below 0 where it rises. steepest_p: the middle of the two
    neighbours between which it falls fastest with p.
    """
    if len(p) < 2 or not (p.diff() < 0).all():
        raise ValueError(f"plateau_scores: p={p.tolist()} given. Give at least two, in falling order.")
    steepest = int((dimensions.diff() / p.diff()).argmax())
    return {"smallest_fall": float(-dimensions.diff().max()), "steepest_p": float(p[steepest : steepest + 2].mean())}


def geometry_scores(W: Float[Tensor, "n_hidden n_features"]) -> dict[str, int | float]:
    """One model in numbers; features in order of importance.

    mean_interference is that of the represented features (0 where there are none). out_of_order: the number represented
    minus the index (from 0) of the first that is not, 0 where exactly the most important ones are.
    """
    kept = represented(W)
    n_kept = int(kept.sum())
    return {
        "represented": n_kept,
        "dimensions_per_feature": float(dimensions_per_feature(W)),
        "mean_interference": float(feature_interference(W)[kept].sum()) / max(n_kept, 1),
        "out_of_order": n_kept - int(kept.long().cumprod(dim=0).sum()),
        "summed_dimensionality": float(feature_dimensionality(W).sum()),
    }
