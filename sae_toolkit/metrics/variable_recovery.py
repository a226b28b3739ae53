"""Which latent variables of a known language have latents for their values, beside labels that were shuffled."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score, numpy_generator
from sae_toolkit.metrics.co_firing import Column, KeptSamples
from sae_toolkit.metrics.detection import Levels, samples_between
from sae_toolkit.metrics.firing_matching import FiringMatching, match_by_firing
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.probe import probe_features
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

VARIABLE_SAMPLES = 50_000
FREQUENCY_VALUES = 8
"""Values of a variable from which rare and common ones are told apart."""


class VariableRecovery(Metric):
    """`firing_f1` of `FiringRecovery` variable by variable, where features are called "variable: value"; here V.

    `variable_f1_V`: mean over the values of V of the F1 of each one's best detector, chosen on the first half of the
    first 50,000 samples and scored on the second. `variable_f1_V_shuffled`: the same detectors against labels shuffled
    among all samples; `variable_f1_V_shuffled_in_token`: among samples of the same token, which leaves what the token
    alone tells, the honest zero of a variable that depends on context. `variable_f1_V_beyond_token`: the F1 less
    that zero, value by value. `variable_f1_V_rare`, `variable_f1_V_common`: over the rarer and the commoner half of the
    values, of variables with at least 8. Values silent in either half are left out.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        names = source.feature_names
        if names is None or isinstance(source, KnownFeatures) or not all(": " in name for name in names):
            return []
        return [cls(names)]

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.kept = KeptSamples(VARIABLE_SAMPLES)
        self.token_ids: list[Tensor] = []

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        before = self.kept.n_samples
        self.kept.update(batch, output)
        if batch.token_ids is None:
            raise ValueError("VariableRecovery: the batch has token_ids=None, but labels are shuffled within tokens.")
        self.token_ids.append(batch.token_ids[: self.kept.n_samples - before].clone())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        features, latents, n = self.kept.feature_columns(), self.kept.latent_columns(), self.kept.n_samples
        found = match_by_firing(features, latents, n)
        tokens = torch.cat(self.token_ids)[n // 2 :].numpy()
        rng = numpy_generator(0, "shuffled labels")
        anywhere, within = rng.permutation(len(tokens)), permutation_within(tokens, rng)
        zero = f1_of_moved_labels(found, features, latents, n, within)
        columns = {
            "": found.f1,
            "_shuffled": f1_of_moved_labels(found, features, latents, n, anywhere),
            "_shuffled_in_token": zero,
            "_beyond_token": found.f1 - zero,
        }
        scores: dict[str, Score] = {}
        for ending, f1 in columns.items():
            scores |= by_variable(self.names, f1, ending)
        return scores | by_frequency(self.names, found.f1, [len(feature.samples) for feature in features])


def by_variable(names: Sequence[str], f1: Float64[Tensor, " n_features"], ending: str = "") -> dict[str, Score]:
    """`variable_f1_V` + ending: the mean over each variable's values."""
    variables = [name.partition(": ")[0] for name in names]
    scores = {}
    for variable in dict.fromkeys(variables):
        own = torch.tensor([one == variable for one in variables])
        name = f"variable_f1_{variable}{ending}"
        scores[name] = mean_score(f1[own], id=f"{name}/v1")
    return scores


def by_frequency(names: Sequence[str], f1: Float64[Tensor, " n_features"], n_on: Sequence[int]) -> dict[str, Score]:
    """`variable_f1_V_rare` and `_common`: means over the halves of a variable's values by how often they hold."""
    variables, scores = [name.partition(": ")[0] for name in names], {}
    for variable in dict.fromkeys(variables):
        own = [i for i, one in enumerate(variables) if one == variable]
        if len(own) >= FREQUENCY_VALUES:
            ordered = sorted(own, key=lambda i: n_on[i])
            half = len(ordered) // 2
            for ending, members in (("rare", ordered[:half]), ("common", ordered[half:])):
                name = f"variable_f1_{variable}_{ending}"
                scores[name] = mean_score(f1[members], id=f"{name}/v1")
    return scores


def permutation_within(groups: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A random permutation that moves every sample to the place of one of its own group."""
    moved = np.empty(len(groups), dtype=np.int64)
    moved[np.argsort(groups, kind="stable")] = np.lexsort((rng.random(len(groups)), groups))
    return moved


def f1_of_moved_labels(
    found: FiringMatching,
    features: list[Column],
    latents: list[Column],
    n_samples: int,
    moved: Int[np.ndarray, " n_second_half"],
) -> Float64[Tensor, " n_features"]:
    """F1 on the second half of detectors already chosen, with label i of that half moved to place moved[i]."""
    start = n_samples // 2
    f1 = torch.where(found.f1.isnan(), torch.nan, 0.0).double()
    for i in ((found.latent >= 0) & ~f1.isnan()).nonzero()[:, 0].tolist():
        on = samples_between(features[i], start, n_samples)
        shuffled = Column(np.sort(moved[on.samples - start]) + start, on.values)
        detector = samples_between(latents[int(found.latent[i])], start, n_samples)
        f1[i] = Levels(detector, shuffled, n_samples - start).f1_over(float(found.threshold[i]))
    return f1


def probe_by_variable(source: ActivationSource, *, n_samples: int = 40_000, seed: int = 0) -> dict[str, Score]:
    """`variable_f1_V` of the supervised linear probe, fitted on n_samples of the train split, scored on as many."""
    assert source.feature_names is not None
    probed = probe_features(source, n_train=n_samples, n_eval=n_samples, seed=seed)
    return by_variable(source.feature_names, probed.f1)
