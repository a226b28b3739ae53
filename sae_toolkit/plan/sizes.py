"""Sizes of SAEs that are never built: the recipe's own `make_saes`, with every tensor on the meta device."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from sae_toolkit.saes.base import AbstractSAE
from sae_toolkit.saes.rank_selection import SelectingConfig

TYPICAL_L0 = 32
"""Active latents assumed of an SAE whose sparsity comes from a penalty, where no other SAE says how many."""


class SAESize(NamedTuple):
    """What one SAE takes, in bytes."""

    d_in: int
    d_sae: int
    k: int
    """Active latents per sample; where a penalty decides, what the recipe's other SAEs have."""
    n_parameters: int
    weights: int
    """Parameters and buffers."""
    gradients: int
    moments: int
    """Adam's two running means."""
    device: str


class WithoutMemory(TorchFunctionMode):
    """Tensors are made on the meta device, whatever generator or device is asked for; `device` is the one asked."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        options.pop("generator", None)  # a CPU generator cannot draw for the meta device
        if func in (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu):
            args = (args[0], *(value for value in args[1:] if not self.names_device(value)))
            options = {name: value for name, value in options.items() if not self.names_device(value)}
            if func is torch.Tensor.cuda:
                self.device = torch.device("cuda")
            dtypes = [value for value in (*args[1:], *options.values()) if isinstance(value, torch.dtype)]
            return args[0].type(dtypes[0]) if dtypes else args[0]
        return func(*args, **options)

    def names_device(self, value: Any) -> bool:
        """Whether an argument says where a tensor shall lie; if so, that is noted."""
        if isinstance(value, str | torch.device):
            self.device = torch.device(value)
            return True
        return False


def sizes_of(make_saes: Callable[[], Mapping[str, AbstractSAE]]) -> dict[str, SAESize]:
    """Size by SAE, without memory for any of them.

    A recipe whose SAEs are computed from data as they are built cannot be sized: a ValueError.
    """
    mode = WithoutMemory()
    try:
        with torch.device("meta"), mode:
            saes = dict(make_saes())
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"plan: the sizes of this recipe's SAEs cannot be known, because make_saes computes with their values "
            f"({error}). Let make_saes only build them."
        ) from error
    ks = [sae.config.k for sae in saes.values() if isinstance(sae.config, SelectingConfig)]
    return {name: size_of(sae, mode.device.type, max(ks, default=TYPICAL_L0)) for name, sae in saes.items()}


def size_of(sae: AbstractSAE, device: str, k_of_others: int) -> SAESize:
    """The size of one SAE, whose tensors may be on the meta device."""
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in sae.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in sae.buffers())
    return SAESize(
        d_in=sae.d_in,
        d_sae=sae.d_sae,
        k=sae.config.k if isinstance(sae.config, SelectingConfig) else min(k_of_others, sae.d_sae),
        n_parameters=sum(parameter.numel() for parameter in sae.parameters()),
        weights=parameters + buffers,
        gradients=parameters,
        moments=2 * parameters,
        device=device,
    )
