"""Which MLP neurons a latent goes up and down with: Pearson's r at the same tokens, in one pass."""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_toolkit.analysis.latent_record import Neighbour
from sae_toolkit.metrics.kept_latents import matrix_of
from sae_toolkit.sparse_rows import SparseRows

CONSTANT = 1e-12
"""Below this share of the mean square a variance is rounding."""


class CorrelatedNeurons:
    """Float64 sums for r of every pair: 8 bytes per chosen latent and neuron (5 MB for 200 latents of GPT-2 small)."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.products: Float64[np.ndarray, "n_latents d_mlp"] | None = None
        self.latents = np.zeros((2, 0))
        self.neurons = np.zeros((2, 0))

    def update(self, latents: SparseRows, neurons: Float[Tensor, "n d_mlp"]) -> None:
        """Adds some samples; `latents` `[n n_latents]`, the chosen ones."""
        acts = matrix_of([latents.with_values(latents.values.detach().double().cpu())])
        there = neurons.detach().cpu().double().numpy()
        products = np.asarray(acts.T @ there)
        sums = np.stack([np.asarray(power.sum(axis=0)).reshape(-1) for power in (acts, acts.multiply(acts))])
        neuron_sums = np.stack([there.sum(axis=0), np.square(there).sum(axis=0)])
        if self.products is None:
            self.products, self.latents, self.neurons = products, sums, neuron_sums
        else:
            self.products += products
            self.latents += sums
            self.neurons += neuron_sums
        self.n_samples += len(there)

    def correlations(self) -> Float64[np.ndarray, "n_latents d_mlp"]:
        """r over all samples, zeros of the latents included; 0 where a latent or a neuron never changes."""
        if self.products is None:
            raise ValueError(
                "CorrelatedNeurons: no sample seen, so there is nothing to correlate. Call `update` first."
            )
        n = self.n_samples
        scales = []
        for total, squares in (self.latents, self.neurons):
            variance = squares - total**2 / n
            varies = variance > CONSTANT * squares
            scales.append(np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0))
        covariance = self.products - np.outer(self.latents[0], self.neurons[0]) / n
        r: Float64[np.ndarray, "n_latents d_mlp"] = covariance * scales[0][:, None] * scales[1]
        return r

    def strongest(self, n_top: int) -> list[tuple[Neighbour, ...]]:
        """For each chosen latent the n_top neurons of largest |r|, largest first."""
        r = torch.from_numpy(self.correlations())
        _, neurons = r.abs().topk(min(n_top, r.shape[1]), dim=1)
        pairs = zip(neurons.tolist(), r.gather(1, neurons).tolist(), strict=True)
        return [
            tuple(Neighbour(index=i, label=f"neuron {i}", value=value) for i, value in zip(*row, strict=True))
            for row in pairs
        ]
