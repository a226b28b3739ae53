"""Reading and checking of activations on disk: .npy and .safetensors files, finite rows, a hash of the content."""

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

LABELS = ("token_ids", "positions", "document_ids")
"""What may be known about each row, by the name it has in a .safetensors file."""

ROWS_PER_CHUNK = 16_384
"""Rows read at a time when the array is checked."""


def check_shapes(activations: Tensor, labels: Mapping[str, Tensor], origin: str) -> None:
    """Two dimensions, at least one row and column, floating values; one integer label per row."""
    if activations.ndim != 2 or activations.numel() == 0 or not activations.is_floating_point():
        raise ValueError(
            f"ArraySource: activations of shape {tuple(activations.shape)} and type {activations.dtype} given by "
            f"{origin}, but a non-empty floating [n_rows d_in] is needed. Reshape or convert them first."
        )
    for name, label in labels.items():
        if label.shape != activations.shape[:1] or label.is_floating_point() or label.dtype == torch.bool:
            raise ValueError(
                f"ArraySource: {name} of shape {tuple(label.shape)} and type {label.dtype} given by {origin}, but "
                f"{len(activations)} integers are needed, one per row."
            )


def hash_finite_rows(activations: Tensor, labels: Mapping[str, Tensor], origin: str) -> str:
    """SHA-256 of all content, read once in chunks; a row with NaN or infinity is a ValueError that names it."""
    digest = hashlib.sha256(f"{activations.dtype}/{tuple(activations.shape)}/{sorted(labels)}".encode())
    for start in range(0, len(activations), ROWS_PER_CHUNK):
        chunk = activations[start : start + ROWS_PER_CHUNK].detach().cpu().contiguous()
        finite = chunk.float().isfinite().all(dim=1)
        if not finite.all():
            first = start + int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"ArraySource: row {first} of {origin} holds NaN or infinity (as float32). Drop such rows first."
            )
        digest.update(chunk.view(torch.uint8).numpy().data)
    for name in sorted(labels):
        digest.update(labels[name].long().contiguous().cpu().numpy().data)
    return digest.hexdigest()


def hash_share(keys: Int[Tensor, " n_rows"]) -> Float[Tensor, " n_rows"]:
    """A fixed pseudo-random number in [0, 1) for each key (the finaliser of SplitMix64, Steele et al. 2014)."""
    bits = keys.cpu().long().numpy().astype(np.uint64)
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) / 2**53)


def read_npy(path: Path) -> Tensor:
    """Memory-mapped copy-on-write: nothing is read before it is asked for, and the file is never changed."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(array)
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"ArraySource: {path} cannot be used ({error}). Save a plain float array with np.save."
        ) from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """`activations` and whichever labels the file holds; an unknown name is refused, it may be a misspelt label."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"ArraySource: {path} is no readable .safetensors file ({error}).") from error
    known = ("activations", *LABELS)
    for name in tensors:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known names are {', '.join(known)}."
            raise ValueError(f"ArraySource: {path} holds a tensor {name!r} that is not understood. {hint}")
    if "activations" not in tensors:
        raise ValueError(f"ArraySource: {path} holds {sorted(tensors)}, but no `activations`.")
    return tensors
