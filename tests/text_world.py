"""Running text small enough for brute force: activations, truth and neurons are pure functions of a token's place."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream, Split, TextRows
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows

BOS, EOS = 0, 1
"""BOS has id 0; EOS is PAD, too."""
N_WORDS, D_MLP, N_FEATURES = 12, 10, 5


def draw(*shape: int, what: str, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator_for(seed, f"text world {what}"))


class TextWorld(ActivationSource):
    """Rows of words with documents that end anywhere; a quarter of a row's activations are 0, the rest quarters.

    Activations are the words' own plus something of their place, in steps of 1/4 so that many are equal. Features hold
    by the word's number and by its neighbour's.
    """

    def __init__(
        self,
        *,
        n_rows: int = 40,
        context: int = 12,
        rows_at_once: int = 3,
        d_in: int = 8,
        seed: int = 0,
        document_tokens: float = 7.0,
        step: float = 0.25,
    ) -> None:
        self.rows_at_once, self.width = rows_at_once, d_in
        words = (draw(n_rows, context, what="words", seed=seed) ** 2 * N_WORDS).long() + 2
        ends = draw(n_rows, context, what="ends", seed=seed) < 1 / document_tokens
        self.token_ids = torch.where(ends, EOS, words)
        self.token_ids[:, 0] = BOS
        after = torch.cat([torch.zeros(1, dtype=torch.bool), ends.flatten()[:-1]])
        self.document_ids = after.long().cumsum(0).view(n_rows, context)
        self.kept = (self.token_ids != BOS) & (self.token_ids != EOS)
        base = draw(N_WORDS + 2, d_in, what="directions", seed=seed)[self.token_ids]
        own = draw(n_rows, context, d_in, what="places", seed=seed)
        self.activations = ((3 * base + own - 2.5).clamp_min(0) / step).round() * step if step else 3 * base + own - 2.5
        following = self.token_ids.roll(1, dims=1)
        fires = torch.stack(
            [(self.token_ids + f) % N_FEATURES == 0 if f % 2 else (following + f) % 4 == 0 for f in range(N_FEATURES)],
            -1,
        )
        self.truth = fires * (1.0 + torch.arange(N_FEATURES) / 10)
        self.neurons = torch.relu(self.activations @ (draw(d_in, D_MLP, what="neurons", seed=seed) - 0.4))

    @property
    def d_in(self) -> int:
        return self.width

    @property
    def token_texts(self) -> list[str]:
        return ["<bos>", "<eos>", *(f" w{i}" for i in range(N_WORDS))]

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"feature {f}" for f in range(N_FEATURES))

    @property
    def neuron_hooks(self) -> Mapping[str, str]:
        return {"activations": "neurons"}

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows]:
        for rows in torch.arange(len(self.token_ids)).split(self.rows_at_once):
            ids = self.token_ids[rows]
            yield TextRows(
                activations=self.activations[rows],
                token_ids=ids,
                document_ids=self.document_ids[rows],
                kept=self.kept[rows],
                excluded={"bos": int((ids == BOS).sum()), "eos": int((ids == EOS).sum())},
                coefficients=SparseRows.from_dense(self.truth[rows]),
                beside={name: self.neurons[rows] for name in beside},
            )

    def stream(self, batch_size: int, *, seed: int, split: Split) -> ActivationStream:
        raise NotImplementedError("whoever has rows reads rows")

    def describe(self) -> dict[str, Any]:
        return {"name": "TextWorld"}

    def samples(self, n: int | None = None) -> dict[str, Tensor]:
        """What is known of the first n kept tokens, in order, and where each stands."""
        row, position = self.kept.nonzero(as_tuple=True)
        row, position = row[:n], position[:n]
        names = ("activations", "token_ids", "document_ids", "truth", "neurons")
        return {name: getattr(self, name)[row, position] for name in names} | {"row": row, "position": position}


class Identity(AbstractDictionary):
    """Latents are the activations themselves: what they are is known to the bit."""

    def __init__(self, d: int) -> None:
        self.d_in = self.d_sae = d

    def forward(self, x: Tensor) -> SAEOutput:
        return SAEOutput(x, x)

    def decoder_directions(self) -> Tensor:
        return torch.eye(self.d_in)


class Samples(ActivationSource):
    """An array read in order, with or without document ids."""

    def __init__(self, activations: Tensor, *, document_ids: Tensor | None = None) -> None:
        self.activations, self.documents = activations, document_ids

    @property
    def d_in(self) -> int:
        return self.activations.shape[1]

    def stream(self, batch_size: int, *, seed: int, split: Split) -> Iterator[ActivationBatch]:  # type: ignore[override]
        for part in torch.arange(len(self.activations)).split(batch_size):
            documents = None if self.documents is None else self.documents[part]
            yield ActivationBatch(self.activations[part], document_ids=documents)

    def describe(self) -> dict[str, Any]:
        return {"name": "Samples"}
