"""A trained SAE's dictionary with another encoder: pursuit, the lasso or least squares instead of one product.

An SAE's encoder is a cheap guess of sparse coding with its dictionary (the amortisation gap: O'Neill et al. 2024,
arXiv 2411.13117). Solving for the latents instead shows what the dictionary itself can do.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE, SAEOutput
from sae_toolkit.saes.coders import Coder
from sae_toolkit.sparse_rows import SparseRows


class SparseInference(AbstractDictionary):
    """Latents of an SAE found by a coder: z >= 0 with normalise(x) - b_dec close to z @ W_dec.

    Latents are in the SAE's own units, so that its `decode` and everything known about a latent still hold. Settings of
    the coder are in units of the contribution z_i ||W_dec_i||, on normalised activations (coordinates near 1).
    """

    def __init__(self, sae: AbstractSAE, coder: Coder) -> None:
        if sae.transcodes:
            raise ValueError(
                f"SparseInference: {type(sae).__name__} predicts what it has not seen, so its latents cannot be solved "
                f"for. Its own encoder is all there is."
            )
        self.sae, self.coder = sae, coder
        self.d_in, self.d_sae = sae.d_in, sae.d_sae

    @torch.no_grad()
    def forward_latents(self, x: Float[Tensor, "*batch d_in"]) -> SparseRows:
        """Latents as sparse rows."""
        lengths = self.sae.W_dec.norm(dim=1)
        units = self.sae.W_dec / torch.where(lengths > 0, lengths, 1.0).unsqueeze(1)
        found = self.coder.encode(self.sae.normalised_rows(x) - self.sae.b_dec, units)
        values = found.values / lengths[found.indices]
        return SparseRows(values, found.indices, found.offsets, (*x.shape[:-1], self.d_sae))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Dense latent activations of raw activations."""
        return self.forward_latents(x).to_dense()

    def decode(self, latents: Float[Tensor, "*batch d_sae"] | SparseRows) -> Float[Tensor, "*batch d_in"]:
        """Raw activations from latents, by the SAE's decoder."""
        return self.sae.decode(latents)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        latents = self.forward_latents(x)
        return SAEOutput(self.sae.decode(latents), latents)

    def decoder_directions(self) -> Float[Tensor, "d_sae d_in"]:
        return self.sae.decoder_directions()

    def identity(self) -> dict[str, Any]:
        return {"kind": "SparseInference", "sae": self.sae.identity(), "coder": repr(self.coder)}
