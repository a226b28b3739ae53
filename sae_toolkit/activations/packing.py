"""Whole documents joined and cut into rows of one length: no padding, and every token knows its document."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


class TokenRows(NamedTuple):
    """Some rows of token ids, ready for a model, and the number in the corpus of each token's document."""

    tokens: Int[Tensor, "rows context"]
    document_ids: Int[Tensor, "rows context"]


class Window:
    """The rows that one stretch of a corpus gives; the tokens at its end that fill no row are dropped.

    Held as int32: 4 bytes per token, and 16 per document.
    """

    def __init__(
        self,
        documents: Sequence[np.ndarray],
        numbers: Sequence[int],
        *,
        context_length: int,
        bos_token_id: int | None,
        next_start: int | None,
    ) -> None:
        """`documents`: token ids `[n_tokens]` each, EOS included; `numbers`: which documents of the corpus they are.

        With a `bos_token_id`, each row starts with it and holds context_length - 1 tokens of the documents.
        """
        self.context_length, self.bos_token_id, self.next_start = context_length, bos_token_id, next_start
        lengths = torch.tensor([len(ids) for ids in documents], dtype=torch.int64)
        self.numbers = torch.tensor(numbers, dtype=torch.int64)
        self.starts = lengths.cumsum(0) - lengths
        self.n_documents, self.n_tokens = len(documents), int(lengths.sum())
        per_row = context_length if bos_token_id is None else context_length - 1
        self.n_rows = self.n_tokens // per_row
        joined = np.concatenate(documents, dtype=np.int32) if documents else np.empty(0, dtype=np.int32)
        self.tokens = torch.from_numpy(joined[: self.n_rows * per_row]).view(self.n_rows, per_row)

    def rows(self, indices: Int[Tensor, " rows"]) -> TokenRows:
        """Rows by number, as int64; the document of a BOS is that of the token after it."""
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= self.n_rows):
            raise ValueError(f"Window.rows: {indices.tolist()} asked, but the window has rows 0 to {self.n_rows - 1}.")
        tokens = self.tokens[indices].long()
        per_row = self.tokens.shape[1]
        places = indices[:, None] * per_row + torch.arange(per_row)
        document_ids = self.numbers[torch.searchsorted(self.starts, places, right=True) - 1]
        if self.bos_token_id is not None:
            tokens = torch.cat([torch.full_like(tokens[:, :1], self.bos_token_id), tokens], dim=1)
            document_ids = torch.cat([document_ids[:, :1], document_ids], dim=1)
        return TokenRows(tokens, document_ids)
