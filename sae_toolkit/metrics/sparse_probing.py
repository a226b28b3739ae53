"""How much of a labelled concept a few latents hold, beside the whole activation and the token alone."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column
from sae_toolkit.metrics.evaluate import first_samples
from sae_toolkit.metrics.kept_latents import KeptLatents, SparseMatrix, matrix_of
from sae_toolkit.metrics.labels import Labelling, labellings_for
from sae_toolkit.metrics.latent_probes import N_LATENTS, auroc_within, selected_probes, token_predictor
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.probe import Ridge, dense_levels
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.sparse_rows import SparseRows

PROBED_SAMPLES = 20_000
MAX_CONCEPTS = 64
MIN_EXAMPLES = 10
"""Positives and negatives that each part must hold."""
PARTS = {"train": (0, 1), "validation": (2,), "test": (3,)}
"""Groups of samples by number modulo 4."""

Masks = dict[str, Bool[np.ndarray, " n_samples"]]
Predictions = Float64[Tensor, "n_samples n_concepts"]


class SparseProbing(Metric):
    """Probes for the classes of labellings, the first 64 of each; names of scores hold the labelling's, here L.

    The first 20,000 samples (fewer where more than 2^24 latents fire; their activations are kept: 61 MB for d_in = 768)
    are divided by document, or by runs of 32 samples where documents are unknown or fewer than 8: half to select and
    fit, a quarter to set the threshold of highest F1, a quarter to score. Means over classes that hold and do not hold
    in at least 10 samples of each part.

    `sparse_probe_f1_L_k1`, `_k2`, `_k5`: F1 of a probe of so many latents, chosen one by one for what the earlier ones
    leave unexplained (k-sparse probing, Gurnee et al. 2023, arXiv 2305.01610).
    `activation_probe_f1_L`: of a probe of the whole activation. `token_probe_f1_L`: of P(class | token id) alone.
    `always_f1_L`: of saying yes always, 2 p / (1 + p): the floor.
    `sparse_probe_auroc_L_given_token_k1` (`_k2`, `_k5`), `activation_probe_auroc_L_given_token`: for labels that the
    token does not decide, P(a positive scores above a negative of the same token), over all such test pairs; a look-up
    of the token has 1/2.

    All probes are ridge regressions: F1 at a tuned threshold and AUROC use the order of scores only, which a logistic
    regression hardly changes, and ridge is exact, without iterations, and one factorisation serves all classes.
    """

    always_on: ClassVar[bool] = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        """The labellings of at most 64 classes, and the first 64 true features."""
        few = [one for one in labellings_for(source) if len(one.classes) <= MAX_CONCEPTS or one.name == "feature"]
        return [cls(few)] if few else []

    def __init__(self, labellings: Sequence[Labelling]) -> None:
        self.labellings = tuple(labellings)
        self.kept = KeptLatents(PROBED_SAMPLES)
        self.activations: list[Tensor] = []
        self.token_ids: list[Tensor] = []
        self.labels: dict[str, list[SparseRows]] = {labelling.name: [] for labelling in self.labellings}

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        n = self.kept.update(batch, output)
        if n == 0:
            return
        part = first_samples(batch, n)
        self.activations.append(part.activations.detach().float().cpu())
        for labelling in self.labellings:
            self.labels[labelling.name].append(labelling.of(part))
        if part.token_ids is not None:
            self.token_ids.append(part.token_ids.cpu())

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        acts, x = self.kept.matrix(), torch.cat(self.activations).double()
        tokens = torch.cat(self.token_ids).numpy() if self.token_ids else None
        scores: dict[str, Score] = {}
        for labelling in self.labellings:
            groups = self.kept.groups(by_document=not labelling.within_documents)
            masks = {part: np.isin(groups % 4, numbers) for part, numbers in PARTS.items()}
            labels = matrix_of(self.labels[labelling.name])[:, :MAX_CONCEPTS].toarray() != 0
            labels = labels[:, enough_examples(labels, masks)]
            values = probe_values(acts, x, tokens, labels, masks, labelling)
            scores |= {name: mean_score(value, id=f"{name}/v1") for name, value in values.items()}
        return scores


def enough_examples(labels: Bool[np.ndarray, "n_samples n_classes"], masks: Masks) -> Bool[np.ndarray, " n_classes"]:
    """Classes with examples for and against in every part."""
    held = np.stack([labels[mask].sum(axis=0) for mask in masks.values()])
    missing = np.stack([(~labels[mask]).sum(axis=0) for mask in masks.values()])
    enough: Bool[np.ndarray, " n_classes"] = (np.minimum(held, missing) >= MIN_EXAMPLES).all(axis=0)
    return enough


def probe_values(
    acts: SparseMatrix,
    x: Float64[Tensor, "n_samples d_in"],
    tokens: Int[np.ndarray, " n_samples"] | None,
    labels: Bool[np.ndarray, "n_samples n_concepts"],
    masks: Masks,
    labelling: Labelling,
) -> dict[str, Float[Tensor, " n_concepts"]]:
    """Every score of one labelling, class by class."""
    name, test = labelling.name, masks["test"]
    probes = predictions_of(acts, x, tokens, torch.from_numpy(labels).double(), masks["train"])
    rate = torch.from_numpy(labels[test]).double().sum(0) / max(int(test.sum()), 1)
    test_tokens = tokens[test] if labelling.contextual and tokens is not None else None

    def given_token(held: Bool[np.ndarray, " n"], score: Float64[np.ndarray, " n"]) -> float:
        assert test_tokens is not None
        return auroc_within(test_tokens, score[test], held[test])

    values = {f"always_f1_{name}": 2 * rate / (1 + rate)}
    for (kind, k), scores in probes.items():
        values[f"{kind}_f1_{name}{k}"] = each(labels, scores, lambda y, z: tuned_f1(y, z, masks))
        if test_tokens is not None and kind != "token_probe":
            values[f"{kind}_auroc_{name}_given_token{k}"] = each(labels, scores, given_token)
    return values


def predictions_of(
    acts: SparseMatrix,
    x: Float64[Tensor, "n_samples d_in"],
    tokens: Int[np.ndarray, " n_samples"] | None,
    targets: Predictions,
    train: Bool[np.ndarray, " n_samples"],
) -> dict[tuple[str, str], Predictions]:
    """What each probe says about every sample, by kind and (for latents) the end of its name."""
    kinds = [("sparse_probe", f"_k{k}") for k in N_LATENTS] + [("activation_probe", "")]
    kinds += [] if tokens is None else [("token_probe", "")]
    if targets.shape[1] == 0:
        return dict.fromkeys(kinds, targets)  # perhaps no sample to train on either
    inside = torch.from_numpy(train)
    by_latents = selected_probes(acts, targets, train).scores
    predicted = {("sparse_probe", f"_k{k}"): scores for k, scores in by_latents.items()}
    predicted["activation_probe", ""] = Ridge(x[inside]).fit(targets[inside])(x)
    if tokens is not None:
        predicted["token_probe", ""] = token_predictor(tokens, targets, train)
    return predicted


def each(
    labels: Bool[np.ndarray, "n_samples n_concepts"],
    scores: Predictions,
    judge: Callable[[Bool[np.ndarray, " n_samples"], Float64[np.ndarray, " n_samples"]], float],
) -> Float64[Tensor, " n_concepts"]:
    """One value per class."""
    columns = scores.numpy()
    return torch.tensor([judge(labels[:, i], columns[:, i]) for i in range(labels.shape[1])], dtype=torch.float64)


def tuned_f1(labels: Bool[np.ndarray, " n_samples"], scores: Float64[np.ndarray, " n_samples"], masks: Masks) -> float:
    """F1 on the test part, above the threshold that was best on the validation part."""
    levels = {
        part: dense_levels(torch.from_numpy(scores[mask]), positives_of(labels[mask]))
        for part, mask in masks.items()
        if part != "train"
    }
    return levels["test"].f1_over(levels["validation"].best_threshold())


def positives_of(labels: Bool[np.ndarray, " n"]) -> Column:
    """The samples for which a class holds."""
    samples = np.flatnonzero(labels)
    return Column(samples, np.ones(len(samples)))
