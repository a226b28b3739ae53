"""Residual streams of an attention-only model that reads the known language."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sae_toolkit.activations.arrays import ArraySource
from sae_toolkit.activations.attention_only import AttentionOnly
from sae_toolkit.activations.model_hash import hash_weights
from sae_toolkit.activations.source import ActivationSource, ActivationStream, Split
from sae_toolkit.ground_truth.language import Language
from sae_toolkit.ground_truth.language_documents import draw_documents
from sae_toolkit.seeding import derived_seed

ROWS_AT_ONCE = 256


class AttentionOnlySource(ActivationSource):
    """The residual stream before every layer and after the last, side by side, of documents drawn once.

    The splits share no document. Documents of both may begin with the same words, and then with the same activations;
    before the first layer an activation is the embedding of its token and nothing else.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which documents are read, and which of their tokens count."""

        n_documents: int = 4096
        """Documents of both splits together; 4 bytes per token, site and dimension stay in memory."""
        eval_share: float = 0.25
        """Expected share of them in the eval split."""
        exclude_positions: tuple[int, ...] = (0,)
        """Positions left out; the first token is always BOS."""
        hooks: tuple[str, ...] | None = None
        """Where the model is read, such as "blocks.0.hook_resid_pre"; None: everywhere."""
        seed: int = 0
        """Of the documents."""

    def __init__(self, model: AttentionOnly, language: Language, config: Config | None = None) -> None:
        self.config = AttentionOnlySource.Config() if config is None else config
        self.model, self.language = model, language
        self.streams = residual_names(model.config.n_layers)
        self.chosen = self.streams if self.config.hooks is None else self.config.hooks
        unknown = [hook for hook in self.chosen if hook not in self.streams]
        if unknown or not self.chosen:
            raise ValueError(
                f"AttentionOnlySource: hooks {list(self.chosen)} asked; choose among {', '.join(self.streams)}."
            )
        seed = derived_seed(self.config.seed, "attention-only activations")
        tokens = draw_documents(language, self.config.n_documents, seed=seed).tokens
        context = tokens.shape[1]
        self.arrays = ArraySource(
            torch.cat([self.read(part).flatten(0, 1) for part in torch.split(tokens, ROWS_AT_ONCE)]),
            token_ids=tokens.flatten(),
            positions=torch.arange(context).repeat(len(tokens)),
            document_ids=torch.arange(len(tokens)).repeat_interleave(context),
            config=ArraySource.Config(
                eval_share=self.config.eval_share, exclude_positions=self.config.exclude_positions
            ),
            origin="AttentionOnlySource",
        )

    @torch.no_grad()
    def read(self, tokens: Tensor) -> Tensor:
        """`[rows ctx d_in]`: the sites side by side."""
        found = dict(zip(self.streams, self.model.weights().residuals(tokens), strict=True))
        return torch.cat([found[hook] for hook in self.chosen], dim=-1)

    @property
    def d_in(self) -> int:
        return sum(self.sites.values())

    @property
    def sites(self) -> Mapping[str, int]:
        return dict.fromkeys(self.chosen, self.model.config.d_model)

    @property
    def token_texts(self) -> Sequence[str]:
        return [" " + word for word in self.language.lexicon.words]

    def stream(self, batch_size: int, *, seed: int, split: Split) -> ActivationStream:
        return self.arrays.stream(batch_size, seed=seed, split=split)

    def describe(self) -> dict[str, Any]:
        return {
            **self.arrays.describe(),
            "name": "AttentionOnlySource",
            "model": asdict(self.model.config),
            "weights_sha256": hash_weights(self.model.state_dict()),
            "language": self.language.describe(),
            "documents": asdict(self.config),
        }


def residual_names(n_layers: int) -> tuple[str, ...]:
    """The residual stream before every layer and after the last; "resid" where there is no layer."""
    last = f"blocks.{n_layers - 1}.hook_resid_post" if n_layers else "resid"
    return (*(f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)), last)
