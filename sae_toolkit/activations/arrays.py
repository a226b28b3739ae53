"""Activations a user already has: tensors, a memory-mapped .npy file, or a .safetensors file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sae_toolkit.activations.array_files import (
    check_shapes,
    hash_finite_rows,
    hash_share,
    read_npy,
    read_safetensors,
)
from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream, Split
from sae_toolkit.activations.stream_state import check_identity
from sae_toolkit.seeding import generator_for


class ArraySource(ActivationSource):
    """Rows of an array in a seeded order. Rows of one document stay in one split; documents are split by a hash.

    The split depends on the rows alone, not on a seed, so that no choice of seeds lets train and eval meet.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which rows are used, and for what."""

        eval_share: float = 0.1
        """Expected share of documents (of rows where no documents are known) that goes to the eval split."""
        exclude_positions: tuple[int, ...] = ()
        """Text positions left out, for example (0,) for the first token."""
        exclude_token_ids: tuple[int, ...] = ()
        """Token ids left out, for example those of BOS, EOS and PAD."""

        def __post_init__(self) -> None:
            if not 0 <= self.eval_share <= 1:
                raise ValueError(f"ArraySource: eval_share={self.eval_share} given, but it must lie in [0, 1].")

    def __init__(
        self,
        activations: Tensor,
        *,
        token_ids: Tensor | None = None,
        positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        config: Config | None = None,
        origin: str = "tensors",
        sites: Mapping[str, int] | None = None,
    ) -> None:
        """`activations [n_rows d_in]` in any floating type, cast to float32 batch by batch; labels `[n_rows]`.

        `sites`: names and widths of the parts of a row that were read at different places, in the order of the columns.
        """
        if sites is not None and sum(sites.values()) != activations.shape[-1]:
            raise ValueError(
                f"ArraySource: sites {dict(sites)} given, {sum(sites.values())} columns in all, but the rows have "
                f"{activations.shape[-1]}. Name every column, in their order."
            )
        self.named = sites
        self.config = ArraySource.Config() if config is None else config
        self.activations = activations
        given = {"token_ids": token_ids, "positions": positions, "document_ids": document_ids}
        self.labels = {name: label.detach() for name, label in given.items() if label is not None}
        check_shapes(activations, self.labels, origin)
        self.sha256 = hash_finite_rows(activations, self.labels, origin)
        reasons = self.exclusions()
        kept = ~torch.stack([*reasons.values(), torch.zeros(len(activations), dtype=torch.bool)]).any(dim=0)
        if not kept.any():
            raise ValueError(
                f"ArraySource: all {len(activations)} rows of {origin} are excluded (by positions "
                f"{self.config.exclude_positions}, by token ids {self.config.exclude_token_ids}). Exclude fewer."
            )
        keys = self.labels.get("document_ids", torch.arange(len(activations)))
        in_eval = hash_share(keys) < self.config.eval_share
        members: dict[Split, Tensor] = {"train": ~in_eval, "eval": in_eval}
        self.rows = {split: (mask & kept).nonzero()[:, 0] for split, mask in members.items()}
        self.excluded = {
            split: {reason: int((mask & hit).sum()) for reason, hit in reasons.items()}
            for split, mask in members.items()
        }
        self.origin = origin

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        token_ids: Tensor | None = None,
        positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        config: Config | None = None,
        sites: Mapping[str, int] | None = None,
    ) -> "ArraySource":
        """A .npy file (memory-mapped) with labels given here, or a .safetensors file that holds its own labels."""
        path = Path(path)
        given = {"token_ids": token_ids, "positions": positions, "document_ids": document_ids}
        labels = {name: label for name, label in given.items() if label is not None}
        if not path.is_file():
            raise ValueError(f"ArraySource: {path} does not exist or is no file. Give a .npy or .safetensors file.")
        if path.suffix == ".npy":
            return cls(read_npy(path), **labels, config=config, origin=str(path), sites=sites)
        if path.suffix != ".safetensors":
            raise ValueError(f"ArraySource: {path} has extension {path.suffix!r}; .npy and .safetensors can be read.")
        tensors = read_safetensors(path)
        if set(labels) & set(tensors):
            raise ValueError(f"ArraySource: {sorted(set(labels) & set(tensors))} given, but {path} holds its own.")
        return cls(tensors.pop("activations"), **tensors, **labels, config=config, origin=str(path), sites=sites)

    @property
    def d_in(self) -> int:
        return self.activations.shape[1]

    @property
    def sites(self) -> Mapping[str, int]:
        return super().sites if self.named is None else dict(self.named)

    def exclusions(self) -> dict[str, Bool[Tensor, " n_rows"]]:
        """Rows left out by reason; a row that two reasons hit is counted under the first."""
        asked = {"positions": self.config.exclude_positions, "token_ids": self.config.exclude_token_ids}
        reasons: dict[str, Tensor] = {}
        for label, values in asked.items():
            if not values:
                continue
            if label not in self.labels:
                raise ValueError(f"ArraySource: exclude_{label}={values} asked, but no {label} are given. Give them.")
            hit = torch.isin(self.labels[label], torch.tensor(values))
            for earlier in reasons.values():
                hit = hit & ~earlier
            reasons[label.removesuffix("s")] = hit
        return reasons

    def stream(self, batch_size: int, *, seed: int, split: Split) -> "ArrayStream":
        if split not in ("train", "eval"):
            raise ValueError(f'ArraySource.stream: split={split!r} asked, but it is "train" or "eval".')
        n_rows = len(self.rows[split])
        if n_rows == 0:
            raise ValueError(
                f"ArraySource.stream: the {split} split of {self.origin} is empty with eval_share="
                f"{self.config.eval_share}. Change the share or give more rows or documents."
            )
        if batch_size < 1 or (split == "train" and batch_size > n_rows):
            raise ValueError(
                f"ArraySource.stream: batch_size={batch_size} asked of {n_rows} {split} rows. Choose 1 to {n_rows}."
            )
        return ArrayStream(self, batch_size=batch_size, seed=seed, split=split)

    def batch_of(self, rows: Int[Tensor, " batch"], excluded: Mapping[str, int]) -> ActivationBatch:
        """Rows by index, as float32, with what is known about them."""
        labels = {name: label[rows].long() for name, label in self.labels.items()}
        return ActivationBatch(
            activations=self.activations[rows].detach().float(),
            token_ids=labels.get("token_ids"),
            positions=labels.get("positions"),
            document_ids=labels.get("document_ids"),
            excluded=dict(excluded),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "name": "ArraySource",
            "origin": self.origin,
            "content_sha256": self.sha256,
            "n_rows": len(self.activations),
            "d_in": self.d_in,
            "dtype": str(self.activations.dtype).removeprefix("torch."),
            "labels": list(self.labels),
            "split_by": "document_ids" if "document_ids" in self.labels else "row",
            "eval_share": self.config.eval_share,
            "exclude_positions": list(self.config.exclude_positions),
            "exclude_token_ids": list(self.config.exclude_token_ids),
            "n_train": len(self.rows["train"]),
            "n_eval": len(self.rows["eval"]),
            "excluded": {split: dict(counts) for split, counts in self.excluded.items()},
            **({} if self.named is None else {"sites": dict(self.named)}),
        }


class ArrayStream(ActivationStream):
    """Train: pass after pass over the rows, each in its own seeded order, a batch may span two passes. Eval: one pass.

    The state is the number of samples given so far. The first batch of each pass carries the counts of that pass's
    excluded rows.
    """

    def __init__(self, source: ArraySource, *, batch_size: int, seed: int, split: Split) -> None:
        self.source, self.batch_size, self.seed, self.split = source, batch_size, seed, split
        self.rows = source.rows[split]
        self.n_given = 0
        self.order: tuple[int, Tensor] = (-1, self.rows)
        self.identity = {
            "source": "ArraySource",
            "content_sha256": source.sha256,
            "eval_share": source.config.eval_share,
            "exclude_positions": sorted(source.config.exclude_positions),
            "exclude_token_ids": sorted(source.config.exclude_token_ids),
            "seed": seed,
            "split": split,
            "batch_size": batch_size,
        }

    def __next__(self) -> ActivationBatch:
        n_rows, wanted = len(self.rows), self.batch_size
        if self.split == "eval":
            wanted = min(wanted, n_rows - self.n_given)
            if wanted <= 0:
                raise StopIteration
        pieces, excluded = [], dict.fromkeys(self.source.excluded[self.split], 0)
        while wanted > 0:
            epoch, start = divmod(self.n_given, n_rows)
            piece = self.order_of(epoch)[start : start + wanted]
            if start == 0:
                excluded = {key: excluded[key] + n for key, n in self.source.excluded[self.split].items()}
            pieces.append(piece)
            wanted -= len(piece)
            self.n_given += len(piece)
        return self.source.batch_of(torch.cat(pieces), excluded)

    def order_of(self, epoch: int) -> Int[Tensor, " n_rows"]:
        """The rows of one pass; eval keeps the order of the array."""
        if self.split == "eval":
            return self.rows
        if self.order[0] != epoch:
            shuffled = torch.randperm(len(self.rows), generator=generator_for(self.seed, "array order", epoch))
            self.order = (epoch, self.rows[shuffled])
        return self.order[1]

    def state_dict(self) -> dict[str, Any]:
        return {**self.identity, "n_given": self.n_given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_identity("ArrayStream", self.identity, state, position="n_given")
        self.n_given = state["n_given"]
