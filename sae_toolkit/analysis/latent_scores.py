"""Scores of single latents: how well labels explain when each fires, beside what shuffled labels would give."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from sae_toolkit.analysis.latent_record import LatentScore
from sae_toolkit.metrics.label_table import LabelTable
from sae_toolkit.metrics.labels import Labelling

PerLatent = Float64[np.ndarray, " n_latents"]


def label_scores(
    labellings: Sequence[Labelling], tables: Mapping[str, LabelTable], n_latents: int
) -> dict[str, list[LatentScore]]:
    """By score name, one score per latent, as `LabelSelectivity` defines them; L is the name of the labelling.

    `purity_L`, `label_entropy_L` (exclusive classes): their floor is the same with shuffled labels. `lift_L` and
    `mutual_information_L`: what shuffled labels give is 0 on average. NaN for latents that fire in fewer than 15 of
    the kept samples of either half.
    """
    scores: dict[str, list[LatentScore]] = {}
    for labelling in labellings:
        table, name = tables[labelling.name], labelling.name
        nothing = np.zeros(len(table.latents))
        columns = {
            f"purity_{name}": (table.purity, table.purity_shuffled),
            f"lift_{name}": (table.lift, nothing),
            f"mutual_information_{name}": (table.mutual_information, nothing),
        }
        if labelling.exclusive:
            columns[f"label_entropy_{name}"] = (table.label_entropy, table.label_entropy_shuffled)
        for score, (values, floors) in columns.items():
            scores[score] = spread(table, values, floors, n_latents)
    return scores


def spread(table: LabelTable, values: PerLatent, floors: PerLatent, n_latents: int) -> list[LatentScore]:
    """The rows of a table at the latents they are about; NaN, without a floor, elsewhere."""
    scores = [LatentScore(value=float("nan"))] * n_latents
    for latent, value, floor in zip(table.latents.tolist(), values.tolist(), floors.tolist(), strict=True):
        scores[latent] = LatentScore(value=value, floor=floor)
    return scores
