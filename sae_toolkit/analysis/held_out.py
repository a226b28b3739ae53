"""Held-out samples in order, each with the text around it: one reading for sources with and without running text."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, TextRows
from sae_toolkit.metrics.co_firing import select_rows
from sae_toolkit.metrics.evaluate import first_samples


class HeldOut(NamedTuple):
    """Some held-out samples, and the rows of text they are from."""

    batch: ActivationBatch
    """The samples alone, row after row."""
    token_rows: Int[Tensor, "rows context"]
    """Every token of the rows, left-out ones too. Where samples are no running text, one sample a row; -1: no token."""
    kept: Bool[Tensor, "rows context"]
    """Which tokens of the rows are the samples."""
    neurons: Float[Tensor, "n d_mlp"] | None = None
    """MLP neurons at the samples, where they were asked for."""


def read_held_out(
    source: ActivationSource, *, n_samples: int, neuron_hook: str | None = None, batch_size: int = 1024, seed: int = 0
) -> Iterator[HeldOut]:
    """The first n_samples of the eval split, fewer where it ends; of running text the same ones on every call.

    `batch_size` and `seed` are those of the stream that is read where there is no running text.
    """
    if n_samples < 1:
        raise ValueError(f"read_held_out: n_samples={n_samples} asked, but at least 1 sample is needed.")
    rows = source.held_out_rows(beside=() if neuron_hook is None else (neuron_hook,))
    parts = without_text(source, batch_size, seed) if rows is None else (of_rows(part, neuron_hook) for part in rows)
    n_left = n_samples
    for part in parts:
        yield first_held_out(part, n_left)
        n_left -= len(part.batch.activations)
        if n_left <= 0:
            return


def without_text(source: ActivationSource, batch_size: int, seed: int) -> Iterator[HeldOut]:
    """Samples of a stream, each a row of its own."""
    for batch in source.stream(batch_size, seed=seed, split="eval"):
        n = len(batch.activations)
        ids = torch.full((n,), -1) if batch.token_ids is None else batch.token_ids.cpu()
        yield HeldOut(batch, ids[:, None], torch.ones(n, 1, dtype=torch.bool))


def of_rows(whole: TextRows, neuron_hook: str | None) -> HeldOut:
    """The kept tokens of rows of text."""
    mask = whole.kept.flatten()
    places = mask.nonzero()[:, 0]
    there = places.to(whole.activations.device)
    batch = ActivationBatch(
        activations=whole.activations.flatten(0, 1).index_select(0, there),
        token_ids=whole.token_ids.flatten()[places],
        positions=places % whole.kept.shape[1],
        document_ids=whole.document_ids.flatten()[places],
        coefficients=None if whole.coefficients is None else select_rows(whole.coefficients, mask),
        excluded=whole.excluded,
    )
    neurons = None if neuron_hook is None else whole.beside[neuron_hook].flatten(0, 1).index_select(0, there)
    return HeldOut(batch, whole.token_ids, whole.kept, neurons)


def first_held_out(part: HeldOut, n: int) -> HeldOut:
    """The first n samples; the tokens after them count as left out."""
    if len(part.batch.activations) <= n:
        return part
    counted = part.kept.flatten().cumsum(0).view_as(part.kept)
    neurons = None if part.neurons is None else part.neurons[:n]
    return HeldOut(first_samples(part.batch, n), part.token_rows, part.kept & (counted <= n), neurons)
