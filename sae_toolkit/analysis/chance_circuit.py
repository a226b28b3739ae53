"""What random directions score on a known circuit: drawn without looking, or each the closest of many to its word.

Where the latent of a word is chosen by firing, chance is more than 1 in n: of w random directions in d dimensions the
closest to a word has a cosine of about sqrt(2 ln w / d) with it (.4 for 384 in 64), and what OV writes for the word
shines through. Directions drawn without looking measure the circuit's own chance. No activations are needed for either.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.circuit_weights import CircuitWeights
from sae_toolkit.analysis.circuit_recovery import KnownCircuit, circuit_scores
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.score import Score
from sae_toolkit.seeding import generator_for

SCORED = (("all heads", "ov_top1"), ("all heads", "qk_auroc"), ("trigrams", "skip_trigram_top1"))


def chance_scores(
    weights: CircuitWeights, layer: int, known: KnownCircuit, *, d_sae: int, n_draws: int = 20, seed: int = 0
) -> dict[str, dict[str, Score]]:
    """Means over so many random dictionaries of d_sae unit directions, which stand for the vectors of a known circuit.

    "drawn": any of them for each source and destination. A direction has one strongest target, so `ov_top1` is at most
    1 / n_sources on average where all sources expect different ones; `qk_auroc` is about 1/2. "closest": the one of
    highest cosine with the true vector, which foretells what latents of a random dictionary score where they are chosen
    by firing. Directions are made as long as the vector they stand for.
    """
    kinds, values = ("drawn", "closest"), torch.zeros(2, len(SCORED), n_draws, dtype=torch.float64)
    for draw in range(n_draws):
        generator = generator_for(seed, "directions of chance", draw)
        directions = torch.randn(d_sae, weights.d_model, generator=generator).to(known.sources)
        directions /= directions.norm(dim=1, keepdim=True)
        vectors = (known.sources, known.destinations)
        choices = (
            [torch.randint(d_sae, (len(these),), generator=generator).to(these.device) for these in vectors],
            [(these @ directions.T).argmax(1) for these in vectors],
        )
        for kind, chosen in enumerate(choices):
            sources, destinations = (stretched(directions[c], v) for c, v in zip(chosen, vectors, strict=True))
            found = circuit_scores(weights, layer, replace(known, sources=sources, destinations=destinations))
            values[kind, :, draw] = torch.tensor([found[part][name].value for part, name in SCORED])
    return {
        kind: {name: mean_score(row, id=f"{name}/v1") for (_, name), row in zip(SCORED, rows, strict=True)}
        for kind, rows in zip(kinds, values, strict=True)
    }


def stretched(directions: Float[Tensor, "n d_model"], like: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """Unit directions, each made as long as the vector beside it."""
    length: Tensor = like.norm(dim=1, keepdim=True)
    return directions * length
