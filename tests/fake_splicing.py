"""A language model small enough to be worked out by hand: what splicing metrics and sites are tested on."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sae_toolkit.activations.source import (
    ActivationBatch,
    ActivationStream,
    Replacement,
    SplicingSource,
    Split,
    TokenLosses,
)
from sae_toolkit.activations.stream_state import check_identity
from sae_toolkit.seeding import generator_for

WIDTHS = {"early": 6, "late": 4}


def draw(*shape: int, what: str) -> Tensor:
    return torch.randn(*shape, generator=generator_for(7, f"fake {what}"))


class FakeSplicingSource(SplicingSource):
    """Next-word logits = sharpness * (tanh(early @ to_late) @ to_words + bias), "late" being the tanh.

    One row of text is one document; odd documents are held out. Position 0 is left out, as BOS is. What follows a
    position is drawn from the model's own prediction there.
    """

    def __init__(
        self,
        sites: tuple[str, ...] = ("early", "late"),
        *,
        n_documents: int = 60,
        context: int = 9,
        rows_at_once: int = 5,
        sharpness: float = 3.0,
    ) -> None:
        self.read, self.rows_at_once, self.context = sites, rows_at_once, context
        self.to_late = draw(WIDTHS["early"], WIDTHS["late"], what="late") / WIDTHS["early"] ** 0.5
        self.to_words = sharpness * draw(WIDTHS["late"], 7, what="words")
        self.bias = sharpness / 6 * draw(7, what="bias")
        self.early = draw(n_documents, context, WIDTHS["early"], what="activations") + 0.5
        chance = self.logits(self.late(self.early)).softmax(-1).reshape(-1, 7)
        drawn = torch.multinomial(chance, 1, generator=generator_for(7, "fake text"))
        self.following = drawn.reshape(n_documents, context)
        self.n_calls = 0

    def late(self, early: Tensor) -> Tensor:
        return torch.tanh(early @ self.to_late)

    def logits(self, late: Tensor) -> Tensor:
        return (late @ self.to_words + self.bias).double()

    @property
    def d_in(self) -> int:
        return sum(WIDTHS[site] for site in self.read)

    @property
    def sites(self) -> Mapping[str, int]:
        return {site: WIDTHS[site] for site in self.read}

    def documents(self, split: Split) -> Tensor:
        return torch.arange(1 if split == "eval" else 0, len(self.early), 2)

    def losses_with(
        self,
        replacements: Mapping[str, Replacement],
        *,
        n_tokens: int,
        site: str | None = None,
        target: str | None = None,
    ) -> Iterator[dict[str, TokenLosses]]:
        if site is None and len(self.read) > 1:
            raise ValueError(f"losses_with: no site given, but there are {', '.join(self.read)}.")
        self.n_calls += 1
        n_rows = -(-n_tokens // (self.context - 1))
        for rows in self.documents("eval")[:n_rows].split(self.rows_at_once):
            yield self.chunk_losses(rows, replacements, site or self.read[0], target or site or self.read[0])

    def chunk_losses(
        self, rows: Tensor, replacements: Mapping[str, Replacement], site: str, target: str
    ) -> dict[str, TokenLosses]:
        words = self.following[rows, 1:].flatten()
        documents = rows.repeat_interleave(self.context - 1)
        early = self.early[rows, 1:].flatten(0, 1)
        clean = self.logits(self.late(early)).log_softmax(-1)
        predictions = {"clean": clean}
        for name, replacement in replacements.items():
            late = self.late(replacement(early)) if target == "early" else self.late(early)
            if target == "late":
                late = replacement(early if site == "early" else late)
            predictions[name] = self.logits(late).log_softmax(-1)
        return {
            name: TokenLosses(
                nll=-spliced.gather(1, words[:, None])[:, 0],
                kl=(clean.exp() * (clean - spliced)).sum(1),
                document_ids=documents,
            )
            for name, spliced in predictions.items()
        }

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "FakeSplicingStream":
        return FakeSplicingStream(self, batch_size, seed, split)

    def describe(self) -> dict[str, Any]:
        return {"kind": "fake language model", "sites": dict(self.sites)}


class FakeSplicingStream(ActivationStream):
    """Train: tokens drawn at random, without end. Eval: each once, in order. Each batch leaves one token out."""

    def __init__(self, source: FakeSplicingSource, batch_size: int, seed: int, split: Split) -> None:
        self.source, self.batch_size, self.index = source, batch_size, 0
        self.identity = {"batch_size": batch_size, "seed": seed, "split": split}
        rows = source.documents(split)
        early = source.early[rows, 1:].flatten(0, 1)
        columns = {"early": early, "late": source.late(early)}
        self.activations = torch.cat([columns[site] for site in source.read], dim=1)
        self.document_ids = rows.repeat_interleave(source.context - 1)

    def __next__(self) -> ActivationBatch:
        if self.identity["split"] == "train":
            generator = generator_for(self.identity["seed"], "fake train", self.index)
            chosen = torch.randint(len(self.activations), (self.batch_size,), generator=generator)
        else:
            start = self.index * self.batch_size
            chosen = torch.arange(len(self.activations))[start : start + self.batch_size]
            if len(chosen) == 0:
                raise StopIteration
        self.index += 1
        return ActivationBatch(
            activations=self.activations[chosen], document_ids=self.document_ids[chosen], excluded={"position": 1}
        )

    def state_dict(self) -> dict[str, Any]:
        return self.identity | {"index": self.index}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_identity("FakeSplicingStream", self.identity, state, position="index")
        self.index = state["index"]
