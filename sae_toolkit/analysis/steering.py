"""Changing what a language model computes through the latents of an SAE.

x' = x + sum_i (z'_i - z_i) d_i for activations x with latents z, of which an edit makes z', and decoder rows d_i in raw
units. The SAE's error x - decode(z) stays in x', so that an edit that changes no latent changes no bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.current_reading import CurrentReading, Reading
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.splicing import at_kept_tokens
from sae_toolkit.metrics.evaluate import inference_mode_of
from sae_toolkit.metrics.model_loss import SAMPLES_AT_ONCE
from sae_toolkit.saes.base import AbstractDictionary, Latents
from sae_toolkit.sparse_rows import SparseRows


@dataclass(frozen=True)
class Add:
    """z' = z + amount, also where the latent is silent; a negative amount may make it negative."""

    latent: int
    amount: float
    """In units of the latent's activation."""

    def applied(self, acts: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The latent's new activations."""
        return acts + self.amount


@dataclass(frozen=True)
class Clamp:
    """z' = value, whatever z is."""

    latent: int
    value: float
    """In units of the latent's activation."""

    def applied(self, acts: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The latent's new activations."""
        return torch.full_like(acts, self.value)


@dataclass(frozen=True)
class Scale:
    """z' = factor * z: acts where the latent does, and nowhere else."""

    latent: int
    factor: float

    def applied(self, acts: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The latent's new activations."""
        return acts * self.factor


@dataclass(frozen=True)
class Remove:
    """z' = 0: the ablation of the latent."""

    latent: int

    def applied(self, acts: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The latent's new activations."""
        return torch.zeros_like(acts)


Edit = Add | Clamp | Scale | Remove


@dataclass(frozen=True, kw_only=True)
class Where:
    """The tokens at which edits act; positions count from the start of a row, also with a key-value cache."""

    positions: tuple[int, ...] | None = None
    """Only at these; None: at all that are not excluded."""
    exclude_positions: tuple[int, ...] = (0,)
    """Never at these. SAEs are trained without the first position, an outlier whatever its token is."""
    exclude_token_ids: tuple[int, ...] | None = None
    """Never at these tokens; None: BOS, EOS and PAD of the model's tokenizer."""

    def __post_init__(self) -> None:
        both = sorted(set(self.positions or ()) & set(self.exclude_positions))
        if both:
            raise ValueError(
                f"Where: positions {both} are asked for and excluded. Give exclude_positions without them."
            )

    def holds(self, reading: Reading, model: LanguageModel) -> Bool[Tensor, "rows context"]:
        """Whether edits act at each token of a call."""
        tokens = reading.tokens
        positions = reading.first_position + torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        ids = special_ids(model) if self.exclude_token_ids is None else self.exclude_token_ids
        out = torch.isin(positions, numbers(self.exclude_positions, tokens)) | torch.isin(tokens, numbers(ids, tokens))
        return ~out if self.positions is None else torch.isin(positions, numbers(self.positions, tokens)) & ~out


def special_ids(model: LanguageModel) -> tuple[int, ...]:
    """Ids of BOS, EOS and PAD, of those that the tokenizer has."""
    tokenizer = model.tokenizer
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return tuple(sorted(ids - {None}))


def numbers(values: Sequence[int], like: Tensor) -> Int[Tensor, " n"]:
    """As a tensor beside another one."""
    return torch.tensor(values, dtype=torch.long, device=like.device)


@contextmanager
def steered(
    model: LanguageModel, sae: AbstractDictionary, hook: str, edits: Sequence[Edit], *, where: Where | None = None
) -> Iterator[None]:
    """Inside, every call of the model is edited: `model.logits`, `capture`, `generate`, your own of `model.module`.

    Edits of one latent act one after the other, in the order given. The SAE is in inference mode while it reads (a
    BatchTopK SAE uses its threshold). At the end, also after an error, the hooks that were there before are those that
    are there. Contexts nest: the inner one edits what the outer one made of the activations.
    """
    check_edits(model, sae, hook, edits)
    where = Where() if where is None else where
    reading = CurrentReading()

    def edit(activations: Float[Tensor, "rows context d_in"]) -> Float[Tensor, "rows context d_in"]:
        kept = where.holds(reading.now, model)
        return at_kept_tokens(lambda x: edited(sae, x, edits), kept)(activations)

    with reading.of(model.module), model.replacing({hook: edit}):
        yield


def edited(sae: AbstractDictionary, x: Float[Tensor, "n d_in"], edits: Sequence[Edit]) -> Float[Tensor, "n d_in"]:
    """Activations with some latents edited; rows in which no latent changes are the same bits."""
    if not edits or len(x) == 0:
        return x
    directions = sae.decoder_directions()
    latents = torch.tensor(sorted({edit.latent for edit in edits}), device=directions.device)
    place = {latent: i for i, latent in enumerate(latents.tolist())}
    parts = []
    with inference_mode_of([sae]):
        for part in torch.split(x, SAMPLES_AT_ONCE):
            before = chosen_latents(sae.forward(part.to(directions)).latent_acts, latents)
            after = list(before.unbind(1))
            for edit in edits:
                after[place[edit.latent]] = edit.applied(after[place[edit.latent]])
            change = torch.stack(after, dim=1) - before
            changed = (change != 0).any(dim=1).to(x.device)
            new = part.clone()
            new[changed] = part[changed] + (change @ directions[latents]).to(part)[changed]
            parts.append(new)
    return torch.cat(parts)


def chosen_latents(latents: Latents, columns: Int[Tensor, " n_chosen"]) -> Float[Tensor, "n n_chosen"]:
    """A few latents' activations, dense."""
    return latents.some_columns(columns) if isinstance(latents, SparseRows) else latents[:, columns]


def check_edits(model: LanguageModel, sae: AbstractDictionary, hook: str, edits: Sequence[Edit]) -> None:
    """Refuses an SAE of another width, latents it does not have, and numbers that are none."""
    if model.width(hook) != sae.d_in:
        raise ValueError(
            f"steered: the SAE reads vectors of d_in={sae.d_in}, but {hook} of {model.name} has {model.width(hook)}. "
            "Give the hook it was trained on."
        )
    for edit in edits:
        if not 0 <= edit.latent < sae.d_sae:
            raise ValueError(f"steered: {edit} asked, but the SAE has latents 0 to {sae.d_sae - 1}.")
        if not all(isfinite(value) for value in vars(edit).values()):
            raise ValueError(f"steered: {edit} asked, but its numbers must be finite.")
