"""ReLU SAE with an Lp penalty, p falling during training (Karvonen et al. 2024, "Measuring Progress in Dictionary
Learning for Language Model Interpretability with Board Game Models", arXiv 2408.00113, section 4).

At p = 1 the penalty is convex and easy to train; as p falls it counts active latents more and shrinks them less. The
paper rescales the coefficient at each change of p by the ratio of the old to the new penalty on recent batches, so that
its weight against the reconstruction does not jump. Here that ratio is taken on the current batch, between p = 1 and
the present p, as a constant without gradient: the same rule without a state.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.active_latents import latents_above
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.penalties import lp_penalty, sizes
from sae_toolkit.sparse_rows import SparseRows

CONSTANT_SHARE = 0.2
"""Share of the run at its start with the initial p, and at its end with the final one."""


class LpSAE(AbstractSAE):
    """z = ReLU((x - b_dec) W_enc + b_enc), penalty sum_i (z_i ||W_dec_i||)^p; initial_p = final_p keeps p constant."""

    has_sparsity_penalty: ClassVar[bool] = True
    unit_norm_decoder: ClassVar[bool] = False
    initial_decoder_norm: ClassVar[float] = 0.1

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractSAE.Config):
        """Choices of a ReLU SAE with an Lp penalty."""

        lp_coefficient: float = 0.1
        """Penalty per sqrt(d_in) of latent activation, as for L1: its size on a batch does not depend on p."""
        initial_p: float = 1.0
        """Power of the penalty over the first fifth of the run."""
        final_p: float = 0.2
        """Power over the last fifth; in between it falls linearly."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.lp_coefficient >= 0:
                raise ValueError(f"LpSAE: lp_coefficient={self.lp_coefficient} given, but it must not be negative.")
            for name in ("initial_p", "final_p"):
                if not 0 < getattr(self, name) <= 1:
                    raise ValueError(f"LpSAE: {name}={getattr(self, name)} given, but it must lie in (0, 1].")

    config: Config

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return latents_above(x, self.W_enc, self.b_enc, self.b_dec)

    def current_p(self) -> float:
        """The power at this point of the run."""
        done = (self.progress - CONSTANT_SHARE) / (1 - 2 * CONSTANT_SHARE)
        return self.config.initial_p + (self.config.final_p - self.config.initial_p) * min(1.0, max(0.0, done))

    def loss_terms(
        self, x: Float[Tensor, "*batch d_in"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        contributions = sizes(output.latent_acts, self.W_dec)
        penalty = lp_penalty(contributions, self.current_p())
        with torch.no_grad():
            same_size = lp_penalty(contributions, 1.0) / penalty.clamp_min(torch.finfo(penalty.dtype).tiny)
        weight = self.config.lp_coefficient * signals.sparsity_weight / self.d_in**0.5
        return {"mse": self.normalised_error(x, output).square().mean(), "lp": weight * same_size * penalty}
