"""Activations of language models: the source, and the only place that imports TransformerLens."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.fingerprint import take_fingerprint
from sae_toolkit.activations.hooks import neurons_before
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.memory import MemoryPart
from sae_toolkit.activations.packing import TokenRows
from sae_toolkit.activations.shuffle import (
    GroupReader,
    GroupRows,
    ShuffledStream,
    WindowExtent,
    buffer_samples,
    buffered_bytes,
)
from sae_toolkit.activations.source import Replacement, SplicingSource, Split, TextRows, TokenLosses
from sae_toolkit.activations.splicing import spliced_losses
from sae_toolkit.activations.text import Text
from sae_toolkit.activations.text_rows import held_out_groups, text_rows
from sae_toolkit.differences import without_labels

MAX_LOGITS = 2**25
"""Logits in memory at a time while losses are computed: 128 MB each for clean, spliced and their difference."""


class TransformerSource(SplicingSource, GroupReader):
    """Raw activations of a language model at one or more hooks, computed while they are asked for.

    One forward pass reads every hook and stops behind the last; `activations` holds the hooks side by side. Special
    tokens stay in the model's input and are left out of what the source gives, with counts by reason.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where the model is read, and which tokens count."""

        hooks: tuple[str, ...] = ("blocks.8.hook_resid_pre",)
        """TransformerLens names: blocks.N.hook_resid_pre|mid|post, hook_attn_out, hook_mlp_out, mlp.hook_post."""
        rows_per_forward: int = 32
        """Rows of text in one forward pass."""
        shuffle_buffer: str = "256 MB"
        """Memory in which activations are mixed, as "256 MB", "2 GB" or "65536 tokens"."""
        exclude_positions: tuple[int, ...] = (0,)
        """Positions of a row left out. The first is an outlier whatever its token is."""
        exclude_token_ids: tuple[int, ...] | None = None
        """Token ids left out wherever they stand; None: BOS, EOS and PAD of the tokenizer."""
        max_norm_ratio: float | None = None
        """Leave out tokens whose norm, at any hook, exceeds so many times the median norm; None: keep all."""

        def __post_init__(self) -> None:
            if self.rows_per_forward < 1:
                raise ValueError(f"TransformerSource: rows_per_forward={self.rows_per_forward} given; at least 1.")
            if self.max_norm_ratio is not None and self.max_norm_ratio <= 1:
                raise ValueError(f"TransformerSource: max_norm_ratio={self.max_norm_ratio} given; more than 1 or None.")

    def __init__(self, model: LanguageModel, text: Text, config: Config | None = None) -> None:
        self.config = TransformerSource.Config() if config is None else config
        self.model, self.text = model, text
        length, longest = text.config.context_length, model.max_context
        if length > longest:
            raise ValueError(
                f"TransformerSource: rows of {length} tokens asked, but {model.name} reads at most {longest}. "
                f"Choose context_length <= {longest}."
            )
        if not self.config.hooks:
            raise ValueError("TransformerSource: no hook given; give at least one, such as blocks.0.hook_resid_post.")
        self.widths = {hook: model.width(hook) for hook in self.config.hooks}
        text.check_rows("train")
        ids = self.config.exclude_token_ids
        special = sorted(set(text.special_token_ids.values())) if ids is None else ids
        self.excluded_ids = torch.tensor(special, dtype=torch.long)
        self.excluded_positions = torch.tensor(self.config.exclude_positions, dtype=torch.long)
        self.fingerprints = {hook: take_fingerprint(model, hook, context_length=length) for hook in self.widths}
        self.shuffle_buffer = self.config.shuffle_buffer
        self.buffer_samples = buffer_samples(self.shuffle_buffer, buffered_bytes(self.d_in))
        self.norm_limits: dict[str, float] = {}  # none while the median is being measured
        self.norm_limits = self.limit_norms()

    @property
    def d_in(self) -> int:
        return sum(self.widths.values())

    @property
    def sites(self) -> Mapping[str, int]:
        return dict(self.widths)

    @property
    def token_texts(self) -> tuple[str, ...] | None:
        return self.text.token_texts

    @property
    def max_group_samples(self) -> int:
        return self.config.rows_per_forward * self.text.config.context_length

    def stream(self, batch_size: int, *, seed: int, split: Split) -> ShuffledStream:
        self.text.check_rows(split)
        identity = {"source": "TransformerSource", "content_sha256": self.content_sha256()}
        return ShuffledStream(
            self, identity, buffer_samples=self.buffer_samples, batch_size=batch_size, seed=seed, split=split
        )

    def extent(self, split: Split, start: int) -> WindowExtent:
        window = self.text.window(split, start)
        n_groups = -(-window.n_rows // self.config.rows_per_forward)
        return WindowExtent(n_groups, window.next_start, window.n_rows * self.text.config.context_length)

    def read_group_rows(self, split: Split, start: int, group: int) -> GroupRows:
        rows = self.group_tokens(split, start, group)
        return self.group_rows(rows, self.model.capture(rows.tokens, self.config.hooks))

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows]:
        self.text.check_rows("eval")
        hooks = (*self.widths, *(hook for hook in beside if hook not in self.widths))
        for start, group in held_out_groups(self):
            rows = self.group_tokens("eval", start, group)
            captured = self.model.capture(rows.tokens, hooks)
            read = {hook: captured[hook] for hook in beside}
            yield text_rows(self.group_rows(rows, captured), read)

    @property
    def neuron_hooks(self) -> Mapping[str, str]:
        hooks = {site: neurons_before(site) for site in self.widths}
        return {site: hook for site, hook in hooks.items() if hook is not None and hook in self.model.hooks}

    def group_tokens(self, split: Split, start: int, group: int) -> TokenRows:
        """The rows of one group: dealt round robin and never by a seed, so that it is spread over its window."""
        window = self.text.window(split, start)
        return window.rows(torch.arange(group, window.n_rows, self.extent(split, start).n_groups))

    def group_rows(self, rows: TokenRows, captured: Mapping[str, Float[Tensor, "rows context _"]]) -> GroupRows:
        """What the model gave at the tokens of one group."""
        return GroupRows(
            activations=side_by_side([captured[hook].flatten(0, 1).float() for hook in self.widths]),
            token_ids=rows.tokens.flatten(),
            positions=torch.arange(rows.tokens.shape[1]).repeat(len(rows.tokens)),
            document_ids=rows.document_ids.flatten(),
            excluded_by={name: mask.flatten() for name, mask in self.exclusions(rows.tokens, captured).items()},
        )

    def exclusions(
        self, tokens: Int[Tensor, "rows context"], captured: Mapping[str, Float[Tensor, "rows context _"]]
    ) -> dict[str, Bool[Tensor, "rows context"]]:
        """Which tokens are left out, by reason."""
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        masks = {
            "token_id": torch.isin(tokens, self.excluded_ids),
            "position": torch.isin(positions, self.excluded_positions),
        }
        if self.norm_limits:
            over = [captured[hook].float().norm(dim=-1) > limit for hook, limit in self.norm_limits.items()]
            masks["norm"] = torch.stack(over).any(dim=0).cpu()
        return masks

    def kept_tokens(self, tokens: Int[Tensor, "rows context"]) -> Bool[Tensor, "rows context"]:
        """The tokens that are no special ones and left out for no other reason."""
        captured = self.model.capture(tokens, self.config.hooks) if self.norm_limits else {}
        return ~torch.stack(list(self.exclusions(tokens, captured).values())).any(dim=0)

    def spread_rows(self, n_rows: int) -> TokenRows:
        """Rows of the eval split for a closer look, spread over its first window; always the same."""
        self.text.check_rows("eval")
        window = self.text.window("eval", 0)
        return window.rows(torch.arange(0, window.n_rows, max(1, window.n_rows // n_rows))[:n_rows])

    def limit_norms(self) -> dict[str, float]:
        """Per hook the norm above which a token is left out, from the median of the first group of the train split."""
        if self.config.max_norm_ratio is None:
            return {}
        rows = self.text.window("train", 0).rows(torch.arange(0, self.extent("train", 0).n_groups))
        captured = self.model.capture(rows.tokens, self.config.hooks)
        kept = ~torch.stack(list(self.exclusions(rows.tokens, captured).values())).any(dim=0)
        return {
            hook: self.config.max_norm_ratio * float(x.cpu().float().norm(dim=-1)[kept].median())
            for hook, x in captured.items()
        }

    def losses_with(
        self,
        replacements: Mapping[str, Replacement],
        *,
        n_tokens: int,
        site: str | None = None,
        target: str | None = None,
    ) -> Iterator[dict[str, TokenLosses]]:
        read = self.only_site() if site is None else site
        written = read if target is None else target
        for hook in (read, written):
            self.columns(hook)
        self.text.check_rows("eval")
        window = self.text.window("eval", 0)
        n_rows = max(1, min(MAX_LOGITS // (self.text.config.context_length * self.model.d_vocab), 64))
        n_chunks = -(-window.n_rows // n_rows)
        given = 0
        for chunk in range(n_chunks):
            rows = window.rows(torch.arange(chunk, window.n_rows, n_chunks))  # spread over many documents
            losses = spliced_losses(
                self.model, rows, self.kept_tokens(rows.tokens), replacements, read=read, written=written
            )
            given += len(losses["clean"].nll)
            yield losses
            if given >= n_tokens:
                return

    def only_site(self) -> str:
        if len(self.widths) > 1:
            raise ValueError(f"TransformerSource: it reads {', '.join(self.widths)}; say at which site to splice.")
        return next(iter(self.widths))

    def content_sha256(self) -> str:
        """One hash for everything that decides the activations; where model and text lie does not."""
        return hashlib.sha256(json.dumps(without_labels(self.describe())).encode()).hexdigest()

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        """Model and text are there once the source is built; the buffer fills with the first blocks of a stream."""
        device = self.model.device.type
        weights = sum(tensor.numel() * tensor.element_size() for tensor in self.model.module.parameters())
        text = sum(window.tokens.numel() * window.tokens.element_size() for window in self.text.windows.values())
        # of a buffer larger than a window, the rest is asked for but never touched
        filled = min(self.buffer_samples, self.extent("train", 0).n_samples)
        return (
            MemoryPart("model weights", weights, held=True, device=device),
            MemoryPart("text", text, held=True),
            MemoryPart("shuffle buffer", filled * buffered_bytes(self.d_in), held=False, device=device),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "name": "TransformerSource",
            "model": self.model.describe(),
            "text": self.text.describe(),
            "hooks": dict(self.widths),
            "rows_per_forward": self.config.rows_per_forward,
            "exclude_positions": self.excluded_positions.tolist(),
            "exclude_token_ids": self.excluded_ids.tolist(),
            "max_norm_ratio": self.config.max_norm_ratio,
            "fingerprints": {hook: dict(fingerprint) for hook, fingerprint in self.fingerprints.items()},
        }


def side_by_side(columns: list[Float[Tensor, "n _"]]) -> Float[Tensor, "n d_in"]:
    """All columns in one matrix; a single one is not copied."""
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)


def boot_bridge(name: str, hf_model: Any, tokenizer: Any, *, device: torch.device, dtype: torch.dtype) -> Any:
    """A TransformerBridge around hf_model, whose modules it wraps in place, and around tokenizer, which it changes."""
    try:
        from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        raise ValueError("reading a language model needs transformer-lens: pip install 'sae-toolkit[lm]'.") from None
    # Without a device TransformerLens would record the first GPU, even for a model that lives on the CPU.
    return TransformerBridge.boot_transformers(
        name, hf_model=hf_model, tokenizer=tokenizer, device=str(device), dtype=dtype
    )
