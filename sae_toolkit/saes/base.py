"""What every dictionary of latents offers (`AbstractDictionary`) and what a trainable one adds (`AbstractSAE`)."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sae_toolkit.config import to_json
from sae_toolkit.saes.active_latents import decode_either
from sae_toolkit.saes.normalise import Normaliser, NormaliserName, make_normaliser
from sae_toolkit.saes.selection import Encoder
from sae_toolkit.saes.weights_hash import weights_sha256
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows

SparseLatents = SparseRows
"""Latents as sparse rows: `[*batch d_sae]`, only the selected latents stored."""

Latents = Tensor | SparseRows


class SAEOutput(NamedTuple):
    """What one forward pass gives; shapes follow the input's leading dimensions."""

    reconstruction: Float[Tensor, "*batch d_out"]
    """In the units of the raw activations, or of what a transcoder predicts."""
    latent_acts: Float[Tensor, "*batch d_sae"] | SparseRows
    """Dense, or sparse where the variant selects few latents."""
    pre_acts: Float[Tensor, "*batch d_sae"] | SparseRows | None = None
    """The pre-activations that a loss asks for, kept in training mode; 0, or not stored, where it needs none."""

    def dense_latents(self) -> Float[Tensor, "*batch d_sae"]:
        return dense_latents(self.latent_acts)

    def sparse_latents(self) -> SparseRows:
        """The selected (or nonzero) latents, whichever form the variant returned; a selected one may be 0."""
        return self.latent_acts if isinstance(self.latent_acts, SparseRows) else SparseRows.from_dense(self.latent_acts)


def dense_latents(latents: Latents) -> Tensor:
    """Either form of latents as one dense `[*batch d_sae]` tensor."""
    return latents.to_dense() if isinstance(latents, SparseRows) else latents


def with_batch(latents: Latents, batch: Sequence[int]) -> Latents:
    """Rows of latents in either form under other leading dimensions."""
    if isinstance(latents, SparseRows):
        return latents.reshape_batch(batch)
    return latents.reshape(*batch, latents.shape[-1])


class TrainingSignals(NamedTuple):
    """What the trainer tells a loss beyond the data."""

    dead: Bool[Tensor, " d_sae"]
    """Latents that have not fired for the configured number of samples."""
    sparsity_weight: Float[Tensor, ""]
    """Multiplies a sparsity penalty: its warm-up, or the output of the target-L0 controller."""


class AbstractDictionary(ABC):
    """Anything that turns raw activations into latents and back: a trained SAE, or a control with fixed directions."""

    d_in: int
    d_sae: int

    @abstractmethod
    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        """Reconstruction and latents of raw activations."""

    @abstractmethod
    def decoder_directions(self) -> Float[Tensor, "d_sae d_out"]:
        """What one unit of each latent adds to the reconstruction, in raw activation units (rows not normalised)."""

    def identity(self) -> dict[str, Any] | None:
        """What makes it the dictionary it is, JSON-ready: equal ones score the same. None where that is not known."""
        return None


class AbstractSAE(nn.Module, AbstractDictionary):
    """A trainable sparse autoencoder. Subclassing registers a variant: it trains, saves, loads and is contract-tested.

    A variant defines its `Config`, `encode_latents` and `loss_terms`; the four weights and the normaliser live here.
    At inference row i of the output depends on row i of the input alone. `d_out` is the length of a
    reconstruction: d_in, but for transcoders, which predict the activations of another place (`transcoder.py`).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Choices that define the function; device, dtype, paths and the optimizer live elsewhere."""

        d_in: int
        """Length of one activation vector."""
        d_sae: int
        """Number of latents."""
        normaliser: NormaliserName = "mean_scalar"
        """How raw activations are scaled inside the SAE; fitted on data when training starts."""

        def __post_init__(self) -> None:
            for name in ("d_in", "d_sae"):
                if getattr(self, name) < 1:
                    raise ValueError(f"SAE config: {name}={getattr(self, name)} given, but it must be at least 1.")
            make_normaliser(self.normaliser, 1)

    variants: ClassVar[dict[str, type["AbstractSAE"]]] = {}
    """Every concrete variant by class name."""

    has_sparsity_penalty: ClassVar[bool] = False
    """Whether `loss_terms` uses `signals.sparsity_weight`, so that a target L0 can be steered to."""

    unit_norm_decoder: ClassVar[bool] = True
    """Whether the trainer keeps decoder rows at length 1 (and removes the gradient along them)."""

    initial_decoder_norm: ClassVar[float] = 1.0
    """Length of a fresh decoder row."""

    rank_in: torch.dtype = torch.float32
    """Precision in which variants that select latents by rank look for candidates in training mode; the trainer sets
    it. Values and gradients are always in full precision, and so is all of inference."""

    tied_encoder: ClassVar[bool] = False
    """Whether activations are read with the decoder: then W_enc and b_enc are no parameters, but properties of it."""

    restarted_encoder_scale: ClassVar[float] = 0.2
    """Length of a restarted encoder column relative to the mean live one (Bricken et al. 2023, appendix). Where latents
    compete by rank it must be 1: a short column is never selected, and its latent dies again."""

    latent_axes: ClassVar[Mapping[str, int]] = {"W_dec": 0, "W_enc": 1, "b_enc": 0}
    """Parameters that hold something for each latent, and the axis along which latents are counted."""

    progress: float = 1.0
    """Share of the run that is done, set by the trainer before each step; for whatever is annealed in training mode.

    Inference never depends on it. It is not saved: a resumed run sets it from its step.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not inspect.isabstract(cls):
            AbstractSAE.variants[cls.__name__] = cls

    def __init__(self, config: Config, *, seed: int = 0, d_out: int | None = None) -> None:
        """Decoder rows of uniform random direction, encoder = their transpose (Gao et al. 2024, appendix A.1).

        With `d_out`, which only transcoders give (and then an `output_normaliser`), the encoder has random directions
        of its own.
        """
        super().__init__()
        self.config = config
        self.d_in, self.d_sae, self.d_out = config.d_in, config.d_sae, config.d_in if d_out is None else d_out
        drawn = generator_for(seed, "SAE initialisation")
        writes = random_rows(config.d_sae, self.d_out, self.initial_decoder_norm, drawn)
        self.W_dec = nn.Parameter(writes)
        if not self.tied_encoder:
            reads = writes.clone()
            if d_out is not None:
                drawn = generator_for(seed, "encoder initialisation")
                reads = random_rows(config.d_sae, self.d_in, self.initial_decoder_norm, drawn)
            # Column after column in memory, like its gradient, which is gathered latent by latent.
            self.W_enc = nn.Parameter(reads.T)
            self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(self.d_out))
        self.normaliser: Normaliser = make_normaliser(config.normaliser, config.d_in)
        self.output_normaliser: Normaliser | None = None

    @property
    def transcodes(self) -> bool:
        """Whether it predicts something else than it reads."""
        return self.output_normaliser is not None

    @property
    def own_target_l0(self) -> float | None:
        """The L0 that its loss asks for by itself; None where it asks for none."""
        return None

    @property
    def centre(self) -> Float[Tensor, " d_in"]:
        """What is subtracted from normalised activations before they are encoded: b_dec, where it is of their kind."""
        return self.W_enc.new_zeros(self.d_in) if self.transcodes else self.b_dec

    @property
    def target_normaliser(self) -> Normaliser:
        """Of what is reconstructed: that of the activations, where they are what is reconstructed."""
        return self.normaliser if self.output_normaliser is None else self.output_normaliser

    @abstractmethod
    def encode_latents(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"] | SparseRows:
        """Latents of *normalised* activations; batch-wide choices only in training mode."""

    @abstractmethod
    def loss_terms(
        self, target: Float[Tensor, "*batch d_out"], output: SAEOutput, signals: TrainingSignals
    ) -> dict[str, Float[Tensor, ""]]:
        """Named and already weighted terms; the trainer minimises their sum and logs each.

        `target` is what the output should be, in raw units: what an SAE has read, what a transcoder is to predict.
        """

    def calibrate_(self, batches: Iterable[Float[Tensor, "_ d_in"]]) -> None:
        """Sets what inference needs beyond trained weights, from raw activations. Most variants need nothing."""
        del batches

    def firing_thresholds(self, output: SAEOutput) -> Float[Tensor, " d_sae"]:
        """What a latent's pre-activation has to exceed in order to fire; `output` is that of the current batch."""
        del output
        return torch.zeros_like(self.b_enc)

    @torch.no_grad()
    def restart_(
        self, latents: Int[Tensor, " n"], directions: Float[Tensor, "n d_out"], *, reads: Float[Tensor, "n d_in"]
    ) -> None:
        """Gives latents new unit directions and encoder columns, in normalised units; the rest of them starts anew."""
        self.W_dec[latents] = directions
        if not self.tied_encoder:
            self.W_enc[:, latents] = reads.T
            self.b_enc[latents] = 0.0

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Dense latent activations of raw activations."""
        return dense_latents(self.forward_latents(x))

    def forward_latents(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"] | SparseRows:
        """Latent activations in the variant's own form, dense or sparse."""
        return with_batch(self.encode_latents(self.normalised_rows(x)), x.shape[:-1])

    def normalised_rows(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "n d_in"]:
        """Raw activations, checked, flattened and normalised."""
        self.check_width(x, self.d_in, "activations")
        return self.normaliser.normalise(x.reshape(-1, self.d_in).to(self.W_dec.dtype))

    def decode(self, latents: Float[Tensor, "*batch d_sae"] | SparseRows) -> Float[Tensor, "*batch d_out"]:
        """What latents in either form add up to, in raw units."""
        self.check_width(latents, self.d_sae, "latents")
        return self.target_normaliser.denormalise(decode_either(latents, self.W_dec) + self.b_dec)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> SAEOutput:
        latents = self.forward_latents(x)
        return SAEOutput(reconstruction=self.decode(latents), latent_acts=latents)

    def bypass(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """What a reconstruction holds beside the decoded latents: nothing, but for a skip connection."""
        return x.new_zeros(*x.shape[:-1], self.d_out)

    def fit_bypass_(self, read: Float[Tensor, "n_samples d_in"], target: Float[Tensor, "n_samples d_out"]) -> None:
        """Sets the bypass, where there is one, from normalised samples before training starts."""
        del read, target

    def normalised_error(
        self, target: Float[Tensor, "*batch d_out"], output: SAEOutput
    ) -> Float[Tensor, "*batch d_out"]:
        """target - reconstruction in the normalised units in which losses are taken: the same scale for any data."""
        return self.target_normaliser.normalise_difference(target - output.reconstruction)

    def decoder_directions(self) -> Float[Tensor, "d_sae d_out"]:
        return self.target_normaliser.denormalise_difference(self.W_dec)

    def identity(self) -> dict[str, Any]:
        return {"variant": type(self).__name__, "config": to_json(self.config), "weights": weights_sha256(self)}

    def encoder(self) -> Encoder:
        """The encoder's weights without a graph."""
        return Encoder(self.W_enc.detach(), self.b_enc.detach(), self.centre.detach())

    def ranking_dtype(self, x: Float[Tensor, "batch d_in"]) -> torch.dtype:
        """The precision in which candidates are looked for now."""
        return torch.bfloat16 if self.training and self.rank_in == torch.bfloat16 else x.dtype

    def check_width(self, given: Tensor | SparseRows, expected: int, what: str) -> None:
        if not given.shape or given.shape[-1] != expected:
            raise ValueError(
                f"{type(self).__name__}: {what} of shape {tuple(given.shape)} given, but the last dimension must be "
                f"{expected} (d_in={self.d_in}, d_sae={self.d_sae}). Check which activations this SAE was trained on."
            )


def random_rows(n: int, d: int, length: float, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Rows of uniform random direction and one length."""
    rows = torch.randn(n, d, generator=generator)
    rows *= length / rows.norm(dim=1, keepdim=True)
    return rows
