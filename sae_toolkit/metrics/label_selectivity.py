"""Whether latents mean one thing, judged by labels that need no judge."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.evaluate import first_samples
from sae_toolkit.metrics.kept_latents import KEPT_SAMPLES, KeptLatents, matrix_of
from sae_toolkit.metrics.label_table import LabelTable, label_table
from sae_toolkit.metrics.labels import Labelling, labellings_for
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.sparse_rows import SparseRows

PURE = 0.9
"""Above this purity a latent counts as pure."""


class LabelSelectivity(Metric):
    """How well each labelling explains when latents fire (z > 0); score names end with the labelling's, here L.

    Means over the latents that fire in at least 15 samples of each half of the kept ones (the first 50,000, fewer where
    more than 2^24 latents fire). Halves are made of whole documents, or of runs of 32 samples where documents are
    unknown, fewer than 8, or what is asked about. The class is chosen in the first half, all is scored in the second.

    `purity_L`: P(c | fires), c the class of highest P(c | fires). `purity_L_top`: at the strongest fifth of its
    activations. `pure_latents_L`: share of latents whose purity exceeds 0.9.
    `lift_L`: (P(c | fires) - P(c)) / (1 - P(c)), c the class of highest lift.
    `selectivity_L`: (m1 - m0) / (m1 + m0) of that class, m1 and m0 the latent's mean activation with and without it.
    `label_entropy_L`, `label_entropy_L_top`: 1 - H(y | fires) / H(y), exclusive classes only; the fewer fires, the
    higher by chance. `purity_L_shuffled`, `label_entropy_L_shuffled`: the same with shuffled labels.
    `mutual_information_L`: (I(fire; y) - its mean over 20 shuffles of y) / H(fire); where several classes may hold, y
    is whether the class of highest lift does. `mutual_information_L_given_token`: shuffled among samples of the same
    token, for labels that the token does not decide: what a look-up of the token cannot reach.
    `label_coverage_L`: share of the classes (of at least 30 samples) for which some latent has a lift of at least 0.5:
    what duplicates of one pure latent do not reach.
    """

    always_on: ClassVar[bool] = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        labellings = labellings_for(source)
        return [cls(labellings)] if labellings else []

    def __init__(self, labellings: Sequence[Labelling]) -> None:
        self.labellings = tuple(labellings)
        self.kept = KeptLatents(KEPT_SAMPLES)
        self.labels: dict[str, list[SparseRows]] = {labelling.name: [] for labelling in self.labellings}
        self.token_ids: list[Tensor] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        n = self.kept.update(batch, output)
        if n == 0:
            return
        part = first_samples(batch, n)
        for labelling in self.labellings:
            self.labels[labelling.name].append(labelling.of(part))
        if part.token_ids is not None:
            self.token_ids.append(part.token_ids.cpu())

    def tables(self) -> dict[str, LabelTable]:
        """By labelling, what was found latent by latent; as costly as all scores together."""
        acts = self.kept.matrix()
        tokens = torch.cat(self.token_ids).numpy() if self.token_ids else None
        return {
            labelling.name: label_table(
                acts,
                matrix_of(self.labels[labelling.name]),
                second=self.kept.groups(by_document=not labelling.within_documents) % 2 == 1,
                classes=labelling.classes,
                exclusive=labelling.exclusive,
                tokens=tokens if labelling.contextual else None,
            )
            for labelling in self.labellings
        }

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        tables = self.tables()
        scores: dict[str, Score] = {}
        for labelling in self.labellings:
            scores |= scores_of(tables[labelling.name], labelling, with_tokens=bool(self.token_ids))
        return scores


def scores_of(table: LabelTable, labelling: Labelling, *, with_tokens: bool) -> dict[str, Score]:
    """Means over latents (coverage: over classes), each with its interval over them."""
    name = labelling.name
    values = {
        f"purity_{name}": table.purity,
        f"purity_{name}_top": table.purity_top,
        f"purity_{name}_shuffled": table.purity_shuffled,
        f"pure_latents_{name}": (table.purity > PURE).astype(float),
        f"lift_{name}": table.lift,
        f"selectivity_{name}": table.selectivity,
        f"mutual_information_{name}": table.mutual_information,
        f"label_coverage_{name}": table.covered,
    }
    if labelling.exclusive:
        values |= {
            f"label_entropy_{name}": table.label_entropy,
            f"label_entropy_{name}_top": table.label_entropy_top,
            f"label_entropy_{name}_shuffled": table.label_entropy_shuffled,
        }
    if labelling.contextual and with_tokens:
        values[f"mutual_information_{name}_given_token"] = table.mutual_information_given_token
    return {key: mean_score(torch.from_numpy(value), id=f"{key}/v1") for key, value in values.items()}
