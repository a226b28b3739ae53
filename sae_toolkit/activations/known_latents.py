"""Activations of a language model that reads the known language: what is true of every token is known, too."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.language_training import LANGUAGE_FILE
from sae_toolkit.activations.memory import MemoryPart
from sae_toolkit.activations.model_loading import ModelConfig, load_model
from sae_toolkit.activations.source import (
    ActivationBatch,
    ActivationStream,
    Replacement,
    SplicingSource,
    Split,
    TextRows,
    TokenLosses,
)
from sae_toolkit.activations.text import Text, TextConfig
from sae_toolkit.activations.transformer import TransformerSource
from sae_toolkit.activations.unembedding import Unembedding, unembedding_of, writes_residual
from sae_toolkit.config import from_json
from sae_toolkit.ground_truth.language import Language, LanguageConfig
from sae_toolkit.ground_truth.language_documents import DOCUMENTS_AT_ONCE, draw_documents
from sae_toolkit.ground_truth.language_features import FAMILIES, LanguageFeatures
from sae_toolkit.seeding import derived_seed
from sae_toolkit.sparse_rows import SparseRows, offsets_of_counts, stacked

PACKAGED = Path(__file__).parents[1] / "checkpoints/known_latents"
"""Inside an installed wheel."""
CHECKOUT = Path(__file__).parents[2] / "checkpoints/known_latents"
"""Beside the package in a source checkout."""


class KnownLatentsSource(SplicingSource):
    """A `TransformerSource` on documents of the known language, each of them one row, BOS first.

    Batches carry `coefficients`: the features that hold after the token, as a perfect reader knows them. They have
    names, but no known direction: a trained model chooses its own. The splits share no document; documents of both may
    begin with the same words, and then with the same activations.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which documents are read, where the model is read, and what counts as a feature."""

        n_documents: int = 16_384
        """Documents of both splits together."""
        eval_share: float = 0.25
        """Expected share of them in the eval split."""
        families: tuple[str, ...] = FAMILIES
        """Latent variables whose values are features."""
        seed: int = 0
        """Of the documents."""

        def __post_init__(self) -> None:
            if self.n_documents < 2 or not 0 < self.eval_share < 1:
                raise ValueError(
                    f"KnownLatentsSource: n_documents={self.n_documents}, eval_share={self.eval_share} given. At least "
                    "2 documents and a share strictly between 0 and 1 are needed, so that both splits have some."
                )

    def __init__(
        self,
        model: LanguageModel,
        language: Language,
        activations: TransformerSource.Config,
        config: Config | None = None,
    ) -> None:
        self.config = KnownLatentsSource.Config() if config is None else config
        self.model, self.language = model, language
        self.features = LanguageFeatures(language, self.config.families)
        if model.tokenizer.get_vocab() != {word: number for number, word in enumerate(language.lexicon.words)}:
            raise ValueError(
                f"KnownLatentsSource: {model.name} has another vocabulary than the language (of "
                f"{len(language.lexicon)} words). Take the language that the model was trained on: read_language."
            )
        seed = derived_seed(self.config.seed, "known latents")
        self.tokens = draw_documents(language, self.config.n_documents, seed=seed).tokens
        text = TextConfig(
            context_length=language.config.context_length, eval_share=self.config.eval_share, prepend_bos=True
        )
        documents = [ids.astype(np.int64) for ids in self.tokens[:, 1:].numpy()]
        self.transformer = TransformerSource(model, Text(documents, model.tokenizer, text), activations)
        blocks = [self.features.coefficients(part) for part in torch.split(self.tokens, DOCUMENTS_AT_ONCE)]
        coefficients = stacked(blocks)
        self.coefficients = replace(coefficients, indices=coefficients.indices.int())  # four bytes are enough

    @property
    def d_in(self) -> int:
        return self.transformer.d_in

    @property
    def sites(self) -> Mapping[str, int]:
        return self.transformer.sites

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(self.features.names)

    @property
    def hierarchy_pairs(self) -> Int[Tensor, "n_pairs 2"]:
        return self.features.hierarchy_pairs()

    @property
    def token_texts(self) -> Sequence[str]:
        return [" " + word for word in self.language.lexicon.words]

    @property
    def promised_tokens(self) -> Int[Tensor, " n_features"]:
        """The token that must come next where a feature holds; -1 for features that promise none."""
        promised = torch.full((len(self.features),), -1)
        for variable in ("value", "ordinary"):
            if variable in self.features.columns:
                columns = self.features.columns[variable]
                first = self.language.lexicon.first[variable]
                promised[columns] = first + torch.arange(columns.stop - columns.start)
        return promised

    @property
    def unembedding(self) -> Unembedding | None:
        """What a vector added at the site does to the logits directly.

        None where the source reads several sites or one that does not write into the residual stream.
        """
        site = next(iter(self.sites))
        if len(self.sites) > 1 or not writes_residual(self.model, site):
            return None
        return unembedding_of(self.model)

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "KnownLatentsStream":
        return KnownLatentsStream(self, self.transformer.stream(batch_size, seed=seed, split=split))

    def coefficients_at(self, document_ids: Int[Tensor, " batch"], positions: Int[Tensor, " batch"]) -> SparseRows:
        """The features that hold after some tokens, `[batch n_features]`."""
        return rows_of(self.coefficients, document_ids * self.tokens.shape[1] + positions)

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows]:
        for rows in self.transformer.held_out_rows(beside=beside):
            positions = torch.arange(rows.token_ids.shape[1]).repeat(len(rows.token_ids))
            truth = self.coefficients_at(rows.document_ids.flatten(), positions)
            yield rows._replace(coefficients=truth.reshape_batch(rows.token_ids.shape))

    @property
    def neuron_hooks(self) -> Mapping[str, str]:
        return self.transformer.neuron_hooks

    def losses_with(
        self,
        replacements: Mapping[str, Replacement],
        *,
        n_tokens: int,
        site: str | None = None,
        target: str | None = None,
    ) -> Iterator[dict[str, TokenLosses]]:
        return self.transformer.losses_with(replacements, n_tokens=n_tokens, site=site, target=target)

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        truth = (self.coefficients.values, self.coefficients.indices, self.coefficients.offsets, self.tokens)
        size = sum(tensor.numel() * tensor.element_size() for tensor in truth)
        return (*self.transformer.memory_bytes(), MemoryPart("what is true of every token", size, held=True))

    def describe(self) -> dict[str, Any]:
        return {
            **self.transformer.describe(),
            "name": "KnownLatentsSource",
            "language": self.language.describe(),
            "families": list(self.features.families),
            "seed": self.config.seed,
        }


class KnownLatentsStream(ActivationStream):
    """The model's stream, each batch with its truth."""

    def __init__(self, source: KnownLatentsSource, activations: ActivationStream) -> None:
        self.source, self.activations = source, activations

    def __next__(self) -> ActivationBatch:
        batch = next(self.activations)
        assert batch.document_ids is not None
        assert batch.positions is not None
        coefficients = self.source.coefficients_at(batch.document_ids.cpu(), batch.positions.cpu())
        return batch._replace(coefficients=coefficients)

    def state_dict(self) -> dict[str, Any]:
        return self.activations.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.activations.load_state_dict(state)


def load_known_latents(
    model: ModelConfig, activations: TransformerSource.Config, documents: KnownLatentsSource.Config
) -> KnownLatentsSource:
    """The source of a model in a folder, read with its language; with `name=None` the model that is shipped."""
    folder = shipped_model() if model.name is None else Path(model.name)
    language = read_language(folder)
    return KnownLatentsSource(
        load_model(replace(model, name=str(folder)), offline=True), language, activations, documents
    )


def shipped_model() -> Path:
    """The folder of the model that `train_known_latents` made and that comes with the package."""
    folders = (PACKAGED, CHECKOUT)
    for folder in folders:
        if (folder / LANGUAGE_FILE).is_file():
            return folder
    raise ValueError(
        f"shipped_model: neither {PACKAGED} nor {CHECKOUT} holds it. Make one: sae-toolkit run train_known_latents."
    )


def rows_of(rows: SparseRows, numbers: Int[Tensor, " batch"]) -> SparseRows:
    """Some rows, in the order asked for."""
    counts = rows.offsets[numbers + 1] - rows.offsets[numbers]
    offsets = offsets_of_counts(counts)
    within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(counts)
    entries = rows.offsets[numbers].repeat_interleave(counts) + within
    return SparseRows(rows.values[entries], rows.indices[entries].long(), offsets, (len(numbers), rows.n_columns))


def read_language(folder: str | Path) -> Language:
    """The language that the model in a folder was trained on, as `save_language_model` noted it."""
    path = Path(folder) / LANGUAGE_FILE
    if not path.is_file():
        raise ValueError(f"read_language: {path} does not exist. Give the folder of a model trained on the language.")
    return Language(from_json(LanguageConfig, json.loads(path.read_text(encoding="utf-8"))["training"]["language"]))
