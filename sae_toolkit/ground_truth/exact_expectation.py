"""Expected loss of a toy model (Elhage et al. 2022, arXiv 2209.10652, "Demonstrating Superposition") without sampling.

Gauss-Legendre nodes for the features that fire, summed over all masks: a mask of k features costs n_nodes^k inputs, all
masks of n features (1 + n_nodes)^n.
"""

from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.ground_truth.toy_data import ToyData
from sae_toolkit.ground_truth.toy_model import ToyModels, WeightedInputs

MAX_INPUTS = 200_000
"""Quadrature inputs above which sampling is the better choice."""


class Grid(NamedTuple):
    """Quadrature inputs that all cells share, and their weight in each cell."""

    x: Float64[Tensor, "n_inputs n_features"]
    weights: Float64[Tensor, "cells n_inputs"]

    def inputs(self, dtype: torch.dtype) -> WeightedInputs:
        """As models read them; the copies of x share their memory."""
        x = self.x.T.to(dtype).contiguous().expand(len(self.weights), -1, -1).mT
        return WeightedInputs(x, self.weights.to(dtype))


def n_grid_inputs(data: ToyData, n_nodes: int) -> int:
    """Inputs of `quadrature_grid`: each feature is silent or at one of its nodes."""
    return int((1 + n_nodes * (2 if data.signed else 1)) ** data.n_features)


def quadrature_grid(data: ToyData, *, n_nodes: int = 8) -> Grid:
    """Inputs and weights with sum_j w_j f(x_j) = E f(x) if f is a polynomial of degree < 2 n_nodes on each mask.

    Outputs of ReLU models have kinks, so that the error falls as n_nodes^-2 only: the loss of an antipodal pair of
    sparse features, all of it along a kink, comes out 1.1 % too high with 8 nodes, 0.3 % with 16 and 0.02 % with 64.
    Signed magnitudes get n_nodes on either side of 0.
    """
    if n_nodes < 1 or n_grid_inputs(data, n_nodes) > MAX_INPUTS:
        raise ValueError(
            f"quadrature_grid: n_nodes={n_nodes} asked for {data.n_features} features, which makes "
            f"{n_grid_inputs(data, n_nodes)} inputs (1 to {MAX_INPUTS} are possible). Use fewer nodes, or sample."
        )
    nodes, node_weights = unit_nodes(n_nodes)
    if data.signed:
        nodes, node_weights = torch.cat([-nodes.flip(0), nodes]), torch.cat([node_weights.flip(0), node_weights]) / 2
    values = torch.cat([torch.zeros(1, dtype=torch.float64), nodes])
    weights = torch.cat([torch.ones(1, dtype=torch.float64), node_weights])
    places = torch.cartesian_prod(*[torch.arange(len(values))] * data.n_features).reshape(-1, data.n_features)
    masks = places > 0
    patterns = torch.tensor(list(product([False, True], repeat=data.n_features)))
    codes = masks.long() @ (2 ** torch.arange(data.n_features - 1, -1, -1))
    total = data.mask_probabilities(patterns)[:, codes] * weights[places].prod(dim=1)
    possible = (total > 0).any(dim=0)
    return Grid(values[places[possible]], total[:, possible])


def exact_loss(
    models: ToyModels, data: ToyData, importance: Float[Tensor, "*cells n_features"], *, n_nodes: int = 16
) -> Float[Tensor, " instances"]:
    """L = E sum_i I_i (x_i - x'_i)^2 of every instance, differentiable; arguments as in `train_toy_models`."""
    n_instances = models.config.n_instances
    grid = quadrature_grid(data, n_nodes=n_nodes)
    inputs = Grid(grid.x, grid.weights.repeat_interleave(n_instances // data.n_cells, dim=0)).inputs(models.b.dtype)
    weights = importance.to(models.b.dtype).expand(data.n_cells, -1)
    return (models.feature_losses(inputs) * weights.repeat_interleave(n_instances // data.n_cells, dim=0)).sum(dim=1)


def unit_nodes(n_nodes: int) -> tuple[Float64[Tensor, " n_nodes"], Float64[Tensor, " n_nodes"]]:
    """Gauss-Legendre nodes and weights on [0, 1], by the eigenvalues of the Jacobi matrix (Golub and Welsch 1969)."""
    k = torch.arange(1, n_nodes, dtype=torch.float64)
    off_diagonal = k / (4 * k**2 - 1).sqrt()
    roots, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return (roots + 1) / 2, vectors[0].square()
