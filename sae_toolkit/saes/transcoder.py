"""Transcoders: latents read from one place of a model predict the activations of another (Dunefsky et al. 2024,
"Transcoders Find Interpretable LLM Feature Circuits", arXiv 2406.11944, section 3.1): z = ReLU(W_enc x + b_enc),
y_hat = W_dec z + b_dec, with x what an MLP reads and y what it writes.

Input and target have normalisers of their own; all equations and losses are in these units. The input is not centred by
b_dec, which belongs to the target, but by its normaliser.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.saes.active_latents import latents_above, mean_weighted_total
from sae_toolkit.saes.base import AbstractSAE, SAEOutput, TrainingSignals
from sae_toolkit.saes.normalise import Normaliser, NormaliserName, make_normaliser
from sae_toolkit.saes.rank_selection import SelectingConfig, current_k, largest_of_rows, smallest_selected
from sae_toolkit.sparse_rows import SparseRows


@dataclass(frozen=True, kw_only=True)
class TranscodingConfig(AbstractSAE.Config):
    """Choices of a transcoder; `d_in` and `normaliser` are those of what it reads."""

    d_out: int
    """Length of one vector that it predicts."""
    target_normaliser: NormaliserName = "mean_scalar"
    """How the target is scaled inside; fitted on data when training starts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_out < 1:
            raise ValueError(f"transcoder config: d_out={self.d_out} given, but it must be at least 1.")
        make_normaliser(self.target_normaliser, 1)

    def make_target_normaliser(self) -> Normaliser:
        """The one it names, not yet fitted."""
        return make_normaliser(self.target_normaliser, self.d_out)


class TopKTranscoder(AbstractSAE):
    """z = ReLU(TopK(x W_enc + b_enc)), y_hat = z W_dec + b_dec, loss = mean squared error.

    Paulo et al. 2025, "Transcoders Beat Sparse Autoencoders for Interpretability", arXiv 2501.18823, section 3.
    """

    restarted_encoder_scale: ClassVar[float] = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Config(TranscodingConfig, SelectingConfig):
        """Choices of a TopK transcoder."""

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed, d_out=config.d_out)
        self.output_normaliser = config.make_target_normaliser()

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        return largest_of_rows(self, x, current_k(self, self.config))

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, target: Float[Tensor, "*batch d_out"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(target, output).square().mean()}


class SkipTopKTranscoder(AbstractSAE):
    """y_hat = z W_dec + x W_skip + b_dec with z = ReLU(TopK(x W_enc + b_enc)), loss = mean squared error.

    Beside a linear map, latents need not spend themselves on what is linear (Paulo et al. 2025, arXiv 2501.18823,
    section 3). There it starts at 0, here at the ridge regression of the target (penalty d_in, so that a sample of
    hardly more than d_in rows is not believed): else latents that fire everywhere take over part of what is linear.
    """

    restarted_encoder_scale: ClassVar[float] = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Config(TranscodingConfig, SelectingConfig):
        """Choices of a TopK transcoder with a skip connection."""

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed, d_out=config.d_out)
        self.output_normaliser = config.make_target_normaliser()
        self.W_skip = torch.nn.Parameter(torch.zeros(config.d_in, config.d_out))

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> SparseRows:
        return largest_of_rows(self, x, current_k(self, self.config))

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        latents = self.forward_latents(x)
        return SAEOutput(self.decode(latents) + self.bypass(x), latents)

    @torch.no_grad()
    def fit_bypass_(self, read: Float[Tensor, "n_samples d_in"], target: Float[Tensor, "n_samples d_out"]) -> None:
        x, y = (rows.double() - rows.double().mean(0) for rows in (read, target))
        gram = x.T @ x + self.d_in * torch.eye(self.d_in, dtype=x.dtype, device=x.device)
        self.W_skip.copy_(torch.linalg.solve(gram, x.T @ y))

    def bypass(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        skipped = self.normalised_rows(x) @ self.W_skip
        return self.target_normaliser.denormalise_difference(skipped).reshape(*x.shape[:-1], self.d_out)

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        return smallest_selected(output, self.d_sae)

    def loss_terms(
        self, target: Float[Tensor, "*batch d_out"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        return {"mse": self.normalised_error(target, output).square().mean()}


class ReluTranscoder(AbstractSAE):
    """z = ReLU(x W_enc + b_enc); loss = mean squared error + l1 * mean_b sum_i z_i ||W_dec_i|| (Dunefsky et al. 2024,
    equation 3, there without the decoder's norm, by which a latent could shrink and pay less)."""

    has_sparsity_penalty: ClassVar[bool] = True
    unit_norm_decoder: ClassVar[bool] = False
    initial_decoder_norm: ClassVar[float] = 0.1  # as in `relu.py`

    @dataclass(frozen=True, kw_only=True)
    class Config(TranscodingConfig):
        """Choices of a ReLU transcoder."""

        l1_coefficient: float = 0.1
        """Penalty per sqrt(d_out) of latent activation, in normalised units (the mean squared error starts near 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.l1_coefficient >= 0:
                raise ValueError(
                    f"ReluTranscoder: l1_coefficient={self.l1_coefficient} given; it must not be negative."
                )

    config: Config

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed, d_out=config.d_out)
        self.output_normaliser = config.make_target_normaliser()

    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        return latents_above(x, self.W_enc, self.b_enc, self.centre)

    def loss_terms(
        self, target: Float[Tensor, "*batch d_out"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        sizes = mean_weighted_total(output.latent_acts, self.W_dec.norm(dim=1))
        l1 = self.config.l1_coefficient * signals.sparsity_weight * sizes / self.d_out**0.5
        return {"mse": self.normalised_error(target, output).square().mean(), "l1": l1}
