"""The weights of some latents as copies: a loss on them reaches no other latent, and costs only what they cost."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_toolkit.saes.base import AbstractSAE


class LatentRows:
    """Rows of the weights with gradients of their own, to be added to those of the whole in the end.

    Differentiating the whole weights through a choice of rows would fill and add matrices of their size, which takes
    longer than a small share of the latents is worth.
    """

    def __init__(self, sae: AbstractSAE, ids: Int[Tensor, " n"]) -> None:
        self.sae, self.ids = sae, ids
        self.W_dec = sae.W_dec.detach().index_select(0, ids).requires_grad_()
        self.reads, self.b_enc = self.W_dec, sae.b_enc.detach().index_select(0, ids)
        """Encoder columns, as rows, and their biases."""
        if not sae.tied_encoder:
            self.reads = sae.W_enc.detach().mT.index_select(0, ids).requires_grad_()
            self.b_enc.requires_grad_()

    def __len__(self) -> int:
        return len(self.ids)

    def pre_acts(self, centred: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch n"]:
        """Of normalised activations from which the SAE's centre was taken."""
        return torch.addmm(self.b_enc, centred, self.reads.mT)

    @torch.no_grad()
    def add_gradients_(self) -> None:
        """To those of the SAE's parameters, of these latents alone."""
        add_rows_(self.sae.W_dec, self.W_dec, self.ids)
        if not self.sae.tied_encoder:
            add_rows_(self.sae.W_enc, self.reads, self.ids, transposed=True)
            add_rows_(self.sae.b_enc, self.b_enc, self.ids)


def add_rows_(
    parameter: nn.Parameter | Tensor, rows: Tensor, ids: Int[Tensor, " n"], *, transposed: bool = False
) -> None:
    """Adds the gradient of some rows (columns, where it is transposed) to that of the parameter."""
    if rows.grad is None:
        return
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    whole = parameter.grad.mT if transposed else parameter.grad
    whole.index_add_(0, ids, rows.grad)
