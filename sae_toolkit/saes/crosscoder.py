"""Crosscoders: one set of latents for several places of a model (Lindsey, Templeton, Marcus, Conerly, Batson & Olah,
Anthropic, October 2024, "Sparse Crosscoders for Cross-Layer Features and Model Diffing").

With a_s the activations at site s: f = ReLU(sum_s W_enc^s a_s + b_enc) and a_s_hat = W_dec^s f + b_dec^s. The sites
stand side by side in one vector, so that W_enc and W_dec are the W^s side by side; each site has a normaliser of its
own, and none counts more because its activations are longer. As in every SAE here, b_dec is subtracted before encoding.

The length of a latent's decoder row at each site says where the feature lives that it stands for (`decoder_norms`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.active_latents import latents_above, mean_weighted_total
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.normalise import Normaliser, SitewiseNormaliser
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, largest_of_rows, smallest_selected
from sae_toolkit.sparse_rows import SparseRows


@dataclass(frozen=True, kw_only=True)
class CrosscodingConfig(AbstractSAE.Config):
    """Choices of a crosscoder; `d_in` is the sum over its sites."""

    site_widths: tuple[int, ...]
    """Length of one activation vector at each site, in the order in which they are read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width < 1 for width in self.site_widths) or sum(self.site_widths) != self.d_in:
            raise ValueError(
                f"crosscoder config: site_widths={self.site_widths} given with d_in={self.d_in}. Give the width of "
                "each site; d_in is their sum."
            )

    def make_site_normaliser(self) -> Normaliser:
        """One for each site, not yet fitted."""
        return SitewiseNormaliser(self.normaliser, self.site_widths)


def decoder_norms(W_dec: Float[Tensor, "d_sae d_in"], site_widths: Sequence[int]) -> Float[Tensor, "d_sae n_sites"]:
    """Length of each latent's decoder row at each site, in the normalised units of that site."""
    return torch.stack([rows.norm(dim=1) for rows in torch.split(W_dec, list(site_widths), dim=1)], dim=1)


class ReluCrosscoder(AbstractSAE):
    """Loss = mean squared error + l1 * mean_b sum_i f_i sum_s ||W_dec_i^s||: the sum over sites of the lengths, not the
    length of the whole row, so that a latent pays for each site that it writes to."""

    has_sparsity_penalty: ClassVar[bool] = True
    unit_norm_decoder: ClassVar[bool] = False
    initial_decoder_norm: ClassVar[float] = 0.1  # as in `relu.py`

    @dataclass(frozen=True, kw_only=True)
    class Config(CrosscodingConfig):
        """Choices of a ReLU crosscoder."""

        l1_coefficient: float = 0.1
        """Penalty per sqrt(d_in) of latent activation, in normalised units (the mean squared error starts near 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.l1_coefficient >= 0:
                raise ValueError(
                    f"ReluCrosscoder: l1_coefficient={self.l1_coefficient} given; it must not be negative."
                )

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.normaliser = config.make_site_normaliser()

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return latents_above(x, self.W_enc, self.b_enc, self.b_dec)

    def loss_terms(
        self, target: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        sizes = mean_weighted_total(output.latent_acts, decoder_norms(self.W_dec, self.config.site_widths).sum(dim=1))
        l1 = self.config.l1_coefficient * signals.sparsity_weight * sizes / self.d_in**0.5
        return {"mse": self.normalised_error(target, output).square().mean(), "l1": l1}


class TopKCrosscoder(AbstractSAE):
    """The k latents that add most to a sample, over all sites together; loss = mean squared error.

    A penalty on lengths makes latents vanish from a site where they are merely weak, selection does not (Minder et al.
    2025, "Overcoming Sparsity Artifacts in Crosscoders", arXiv 2504.02922, there with BatchTopK). Whole decoder rows
    are kept at length 1.
    """

    restarted_encoder_scale: ClassVar[float] = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Config(CrosscodingConfig, SelectingConfig):
        """Choices of a TopK crosscoder."""

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.normaliser = config.make_site_normaliser()

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        return largest_of_rows(self, x, current_k(self, self.config))

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, target: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(target, output).square().mean()}
