"""Skip-trigrams "source ... destination -> output" of a head, and the error that they must make (Elhage et al. 2021).

A head knows f1(source, destination), how much it attends, and f2(source, output), what it then writes. It adds
f1 f2, so that it cannot let the output depend on the destination: who writes "keep ... in -> mind" and "keep ... at ->
bay" with one head also raises "keep ... in -> bay" and "keep ... at -> mind".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.analysis.head_circuits import token_ov, token_qk


@dataclass(frozen=True, kw_only=True)
class SkipTrigrams:
    """The strongest destinations and outputs of one source token at one head."""

    source: int
    destinations: tuple[int, ...]
    """Tokens that attend to the source more than to other tokens, strongest first."""
    scores: tuple[float, ...]
    """Their attention scores for the source, minus the mean of each over all keys."""
    outputs: tuple[int, ...]
    """Tokens that the head raises where it attends to the source, strongest first."""
    logits: tuple[float, ...]
    """By how much, minus the mean over all outputs."""


def skip_trigrams(
    weights: CircuitWeights, layer: int, head: int, sources: Sequence[int], *, n: int = 5, distance: int = 0
) -> list[SkipTrigrams]:
    """The n destinations and n outputs of each source that a softmax tells apart best; positions left out."""
    chosen = torch.tensor(list(sources), dtype=torch.long)
    scored = token_qk(weights, layer, head, distance=distance).centred()
    asked = type(scored)(scored.left, scored.right[:, chosen]).transposed.top_in_rows(n)
    written = token_ov(weights, layer, (head,)).centred()
    raised = type(written)(written.left[chosen], written.right).top_in_rows(n)
    return [
        SkipTrigrams(
            source=source,
            destinations=tuple(asked[1][i].tolist()),
            scores=tuple(asked[0][i].tolist()),
            outputs=tuple(raised[1][i].tolist()),
            logits=tuple(raised[0][i].tolist()),
        )
        for i, source in enumerate(chosen.tolist())
    ]


def one_head_losses(trigrams: Int[Tensor, "n 3"], strength: float, n_tokens: int) -> Float[Tensor, " n"]:
    """What one head that writes all of these (source, destination, output) must lose on each, in nats.

    It attends fully where a destination of a source stands and raises every output of that source by `strength` above
    the other n_tokens: with m outputs of a source, log(m + (n_tokens - m) exp(-strength)), which is log m at best.
    """
    distinct = torch.unique(trigrams[:, [0, 2]], dim=0)
    outputs = (distinct[:, 0] == trigrams[:, :1]).sum(1).double()
    losses: Tensor = (outputs + (n_tokens - outputs) * exp(-strength)).log().float()
    return losses
