"""Hashes of weights: equal where every bit, shape and type is."""

import hashlib

import torch
from torch import Tensor, nn


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every parameter and buffer, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_sha256(tensor: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes."""
    head = f"{tensor.dtype} {tuple(tensor.shape)}\n".encode()
    return hashlib.sha256(head + tensor_bytes(tensor)).hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The numbers as they lie in memory, row after row."""
    content: bytes = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return content
