"""On how many different tokens a latent fires."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import divide, mean_score, numpy_generator
from sae_toolkit.metrics.kept_latents import KEPT_SAMPLES, KeptLatents, SparseMatrix, indicators
from sae_toolkit.metrics.label_information import PerLatent, count_labels, entropy_given_firing
from sae_toolkit.metrics.label_table import MIN_FIRES, N_SHUFFLES
from sae_toolkit.metrics.labels import known
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput


class TokenConcentration(Metric):
    """How few tokens a latent fires on; fully passed by a look-up of the token, also in a random model: no headline.

    Over the latents that fire (z > 0) at least 30 times in the first 50,000 samples (fewer where more than 2^24 latents
    fire), H in nats, from counts: with few fires it comes out too low, with shuffled tokens just as much.

    `effective_tokens`: mean of exp(H(token | fires)), between 1 and the number of fires.
    `effective_tokens_shuffled`: the same with the tokens of all samples shuffled, mean of 20: a latent blind to tokens.
    `token_concentration`: mean of 1 - H(token | fires) / its mean over the shuffles: 0 blind, 1 a single token.

    A random transformer's latents score high (Heap et al. 2025, arXiv 2501.17727): it says what a latent reads, not
    that a model learned anything.
    """

    always_on: ClassVar[bool] = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [] if source.token_texts is None else [cls()]

    def __init__(self) -> None:
        self.kept = KeptLatents(KEPT_SAMPLES)
        self.token_ids: list[Tensor] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        ids = known(batch.token_ids, "token_ids", "TokenConcentration")
        self.token_ids.append(ids[: self.kept.update(batch, output)].cpu())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        fires = indicators(self.kept.matrix()).T.tocsr()
        fires = fires[fires.getnnz(axis=1) >= MIN_FIRES]
        tokens = one_hot_tokens(torch.cat(self.token_ids).numpy())
        found = entropy_given_firing(count_labels(fires, tokens))
        rng = numpy_generator(0, "token shuffles")
        shuffled = [
            entropy_given_firing(count_labels(fires, tokens[rng.permutation(tokens.shape[0])]))
            for _ in range(N_SHUFFLES)
        ]
        by_chance = np.mean(shuffled, axis=0)
        values: dict[str, PerLatent] = {
            "effective_tokens": np.exp(found),
            "effective_tokens_shuffled": np.exp(shuffled).mean(axis=0),
            "token_concentration": divide(by_chance - found, by_chance, otherwise=np.nan),
        }
        return {name: mean_score(torch.from_numpy(value), id=f"{name}/v1") for name, value in values.items()}


def one_hot_tokens(token_ids: Int[np.ndarray, " n_samples"]) -> SparseMatrix:
    """`[n_samples n_distinct]`, one column per token that occurs."""
    from scipy import sparse  # noqa: PLC0415  (slow import)

    distinct, columns = np.unique(token_ids, return_inverse=True)
    n = len(token_ids)
    ones = np.ones(n, dtype=np.int32)
    return sparse.csr_matrix((ones, columns.reshape(-1), np.arange(n + 1)), shape=(n, len(distinct)))
