"""How well a table of a circuit recovers a circuit that is known: top-1 shares and AUROC with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.analysis.factored import Factored
from sae_toolkit.analysis.head_circuits import ov_circuit, qk_circuit
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column
from sae_toolkit.metrics.detection import Levels
from sae_toolkit.metrics.score import Score


def top1_share(table: Factored, expected: Int[Tensor, " n_rows"], *, name: str) -> Score:
    """Share of rows whose largest entry stands in the expected column; -1 expects nothing and is always missed."""
    return mean_score((table.top_in_rows(1)[1][:, 0] == expected).double(), id=f"{name}/v1")


def group_top1_share(
    table: Float[Tensor, "n_rows n_columns"], related: Bool[Tensor, "n_rows n_columns"], *, name: str
) -> Score:
    """Share of rows whose largest entry stands in one of the related columns."""
    return mean_score(related.gather(1, table.argmax(1, keepdim=True))[:, 0].double(), id=f"{name}/v1")


def relation_auroc(
    table: Float[Tensor, "n_rows n_columns"], related: Bool[Tensor, "n_rows n_columns"], *, name: str
) -> Score:
    """Mean over rows of P(a related entry is larger than an unrelated one), ties counting half."""
    found = [row_auroc(values, positive) for values, positive in zip(table, related, strict=True)]
    return mean_score(torch.tensor(found, dtype=torch.float64), id=f"{name}/v1")


def row_auroc(values: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> float:
    """AUROC of one row, on a scale where nothing is 0, which `Levels` would not store."""
    scores = (values.double() - values.double().min() + 1.0).numpy()
    on = positive.nonzero()[:, 0].numpy()
    return Levels(Column(np.arange(len(scores)), scores), Column(on, np.ones(len(on))), len(scores)).auroc()


@dataclass(frozen=True, kw_only=True)
class KnownCircuit:
    """True skip-trigrams in vectors: of tokens (embeddings, unembedding) or of latents that stand for them."""

    sources: Float[Tensor, "n_sources d_model"]
    destinations: Float[Tensor, "n_destinations d_model"]
    targets: Float[Tensor, "d_model n_targets"]
    """All that a source could promise: the unembedding of some words, or reading directions of all latents."""
    expected: Int[Tensor, " n_sources"]
    """The column of `targets` that each source must raise; -1 where no latent stands for it."""
    attends: Bool[Tensor, "n_destinations n_sources"]
    """Which sources each destination must attend to."""

    @classmethod
    def of_tokens(
        cls,
        weights: CircuitWeights,
        *,
        sources: Int[Tensor, " n_sources"],
        destinations: Int[Tensor, " n_destinations"],
        outputs: Int[Tensor, " n_sources"],
        candidates: Int[Tensor, " n_targets"],
        attends: Bool[Tensor, "n_destinations n_sources"],
    ) -> "KnownCircuit":
        """By token ids: embeddings before the layer, the unembedding of the `candidates` behind it."""
        embedding = weights.W_E.detach()
        return cls(
            sources=embedding[sources],
            destinations=embedding[destinations],
            targets=weights.W_U.detach()[:, candidates],
            expected=places_in(candidates, outputs),
            attends=attends,
        )


def circuit_scores(weights: CircuitWeights, layer: int, known: KnownCircuit) -> dict[str, dict[str, Score]]:
    """Of each head and of all heads of a layer: does OV promise the right thing, does QK find the right sources?

    `ov_top1`: share of sources that raise their own target the most of all targets. `qk_top1`: share of destinations
    whose highest score is for one of their sources. `qk_auroc`: mean over destinations of P(own source > other source).
    "best head" repeats the head of highest `qk_auroc`; "all heads" adds up what all heads write, and their scores.
    Heads that never look at a source write noise for it, which that sum counts and "trigrams" does not.
    """
    heads, found = range(weights.n_heads), {}
    circuits = (qk_circuit(weights, layer, head).between(known.destinations, known.sources.T) for head in heads)
    scored = [circuit.dense() for circuit in circuits]
    for head in heads:
        found[f"head {head}"] = parts_of(weights, layer, (head,), known, scored[head])
    found["best head"] = max(found.values(), key=lambda scores: scores["qk_auroc"].value)
    found["all heads"] = parts_of(weights, layer, heads, known, torch.stack(scored).sum(0))
    found["trigrams"] = {"skip_trigram_top1": skip_trigram_top1(weights, layer, known, scored)}
    return found


def skip_trigram_top1(
    weights: CircuitWeights,
    layer: int,
    known: KnownCircuit,
    scored: Sequence[Float[Tensor, "n_destinations n_sources"]],
) -> Score:
    """Share of (destination, source) pairs whose skip-trigram sum_h f1_h f2_h raises the source's own target the most.

    f1_h: the attention of head h, a softmax over the known sources; f2_h: what it writes for the source.
    """
    destinations, sources = known.attends.nonzero(as_tuple=True)
    total = torch.zeros(len(sources), known.targets.shape[1]).to(known.targets)
    for head, scores in enumerate(scored):
        written = ov_circuit(weights, layer, (head,)).between(known.sources[sources], known.targets).dense()
        total += scores.softmax(1)[destinations, sources, None] * written
    hit = total.argmax(1) == known.expected[sources]
    return mean_score(hit.double(), id="skip_trigram_top1/v1")


def parts_of(
    weights: CircuitWeights,
    layer: int,
    heads: Sequence[int],
    known: KnownCircuit,
    scored: Float[Tensor, "n_destinations n_sources"],
) -> dict[str, Score]:
    """All three scores of some heads together."""
    return {
        "qk_top1": group_top1_share(scored, known.attends, name="qk_top1"),
        "qk_auroc": relation_auroc(scored, known.attends, name="qk_auroc"),
        "ov_top1": written_top1(weights, layer, heads, known),
    }


def written_top1(weights: CircuitWeights, layer: int, heads: Sequence[int], known: KnownCircuit) -> Score:
    """`ov_top1` of some heads together."""
    written = ov_circuit(weights, layer, heads).between(known.sources, known.targets)
    return top1_share(written, known.expected, name="ov_top1")


def places_in(candidates: Int[Tensor, " n_candidates"], wanted: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Where each wanted number stands among the candidates; one that does not is a ValueError."""
    hits = candidates == wanted[:, None]
    if not hits.any(1).all():
        missing = wanted[~hits.any(1)].tolist()
        raise ValueError(
            f"circuit: outputs {missing[:5]} asked, which are no candidates. Name every output among the candidates."
        )
    return hits.long().argmax(1)
