"""How well a concept can be read off whole activations, off one latent and off a few: ceiling and baselines.

A supervised probe of the activation says what a linear reader could know; it is no ceiling of the latents themselves,
whose choice is not linear. Beside it stand probes that may read 1, 2 or 5 latents, P(concept | token) alone, and saying
yes always. Documents are divided: half to select and fit, a quarter to set regularisation and threshold, a quarter to
score. Ridge and logistic regression: F1 at a tuned threshold and AUROC use the order of scores only.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int

from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.analysis.probe_scores import auroc_score, f1_score, rate_score
from sae_toolkit.metrics.evaluate import feed
from sae_toolkit.metrics.kept_latents import SparseMatrix, matrix_of
from sae_toolkit.metrics.labels import Labelling
from sae_toolkit.metrics.latent_probes import N_LATENTS, selected_probes, token_predictor
from sae_toolkit.metrics.probe import Ridge, dense_levels
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparse_probing import (
    MIN_EXAMPLES,
    PARTS,
    PROBED_SAMPLES,
    SparseProbing,
    enough_examples,
    positives_of,
)
from sae_toolkit.saes.base import AbstractDictionary

INVERSE_PENALTIES = (0.01, 0.1, 1.0)
"""scikit-learn's C for logistic regression on standardised inputs; the best on the validation part is taken."""
MAX_ITERATIONS = 2000

Samples = Bool[np.ndarray, " n_samples"]


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One probe, scored on documents that nothing was fitted or tuned on."""

    reads: str
    """"activation", "1 latent", "2 latents", ..., "token", "nothing"."""
    method: str
    """"logistic", "ridge", "counts" (of the token), "always"."""
    f1: Score
    """Above the threshold of highest F1 on the validation part; floor: saying yes always, 2 p / (1 + p)."""
    auroc: Score
    """P(a positive scores above a negative), ties counting half; floor: 1/2."""
    latents: tuple[int, ...] = ()
    """Those that it reads, in the order in which they were selected."""


@dataclass(frozen=True, kw_only=True)
class ProbeTable:
    """All probes of one concept."""

    concept: str
    labelling: str
    base_rate: Score
    """Share of test samples for which the concept holds."""
    rows: tuple[ProbeRow, ...]
    n_samples: Mapping[str, int]
    """By part: train, validation, test."""

    def row(self, reads: str, method: str = "logistic") -> ProbeRow:
        """One of the rows; a row that is not there is a ValueError."""
        for one in self.rows:
            if (one.reads, one.method) == (reads, method):
                return one
        there = ", ".join(f"{one.reads} ({one.method})" for one in self.rows)
        raise ValueError(f"ProbeTable: no row {reads!r}, {method!r}. There are {there}.")


def probe_concept(
    sae: AbstractDictionary,
    source: ActivationSource,
    labelling: Labelling,
    concept: str,
    *,
    n_samples: int = PROBED_SAMPLES,
    seed: int = 0,
) -> ProbeTable:
    """Probes for one class of a labelling, on held-out samples (at most 20,000, their activations are kept).

    Labellings: `labellings_for(source)`, `concept_labelling(read_concepts(file), source.token_texts)`, `true_features`
    of a source whose features are known, or one of your own. A class with fewer than 10 samples for or against in a
    part is a ValueError. Where documents are unknown (or fewer than 8), runs of 32 samples are divided instead.
    """
    column = class_number(labelling, concept)
    fed, _ = feed({"sae": sae}, source, n_samples=n_samples, metrics=lambda: [SparseProbing([labelling])], seed=seed)
    (collected,) = fed["sae"]
    assert isinstance(collected, SparseProbing)
    groups = collected.kept.groups(by_document=not labelling.within_documents)
    parts = {part: np.isin(groups % 4, chosen) for part, chosen in PARTS.items()}
    labels = matrix_of(collected.labels[labelling.name])[:, [column]].toarray() != 0
    if not enough_examples(labels, parts)[0]:
        counts = {part: f"{int(labels[mask].sum())} of {int(mask.sum())}" for part, mask in parts.items()}
        raise ValueError(
            f"probe_concept: {concept!r} holds for {counts} samples, but at least {MIN_EXAMPLES} for and against are "
            "needed in each part. Give more samples, or another concept."
        )
    judge = Judge(labels[:, 0], groups, parts)
    x = torch.cat(collected.activations).double()
    rows = activation_rows(x.numpy(), judge) + latent_rows(collected.kept.matrix(), judge)
    if collected.token_ids:
        target = torch.from_numpy(judge.labels).double()[:, None]
        counted = token_predictor(torch.cat(collected.token_ids).numpy(), target, parts["train"])
        rows.append(judge.row("token", "counts", counted[:, 0].numpy()))
    rows.append(judge.row("nothing", "always", np.ones(len(x))))
    return ProbeTable(
        concept=concept,
        labelling=labelling.name,
        base_rate=rate_score(judge.labels[parts["test"]], groups[parts["test"]]),
        rows=tuple(rows),
        n_samples={part: int(mask.sum()) for part, mask in parts.items()},
    )


def class_number(labelling: Labelling, concept: str) -> int:
    """The column of a class; an unknown one is a ValueError that names the nearest."""
    classes = list(labelling.classes)
    if concept not in classes:
        near = difflib.get_close_matches(concept, classes, n=1, cutoff=0.0)
        raise ValueError(f"probe_concept: {labelling.name} has no class {concept!r}. Did you mean {near[0]!r}?")
    return classes.index(concept)


@dataclass(frozen=True)
class Judge:
    """The labels, and which part each sample is in."""

    labels: Samples
    groups: Int[np.ndarray, " n_samples"]
    parts: Mapping[str, Samples]

    def row(
        self, reads: str, method: str, scores: Float64[np.ndarray, " n_samples"], latents: tuple[int, ...] = ()
    ) -> ProbeRow:
        """What a probe that says `scores` is worth."""
        validation, test = self.parts["validation"], self.parts["test"]
        scores = scores - scores.min() + 1  # thresholds are sought above 0
        levels = dense_levels(torch.from_numpy(scores[validation]), positives_of(self.labels[validation]))
        labels, groups = self.labels[test], self.groups[test]
        return ProbeRow(
            reads=reads,
            method=method,
            f1=f1_score(scores[test] > levels.best_threshold(), labels, groups),
            auroc=auroc_score(scores[test], labels, groups),
            latents=latents,
        )

    def logistic(self, x: Float64[np.ndarray, "n_samples d"]) -> Float64[np.ndarray, " n_samples"]:
        """Log-odds by logistic regression on standardised inputs, its penalty chosen on the validation part."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (slow import)

        train, validation = self.parts["train"], self.parts["validation"]
        deviation = x[train].std(axis=0)
        x = (x - x[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
        best, best_loss = np.zeros(len(x)), np.inf
        for inverse_penalty in INVERSE_PENALTIES:
            fit: Any = LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS)
            scores = fit.fit(x[train], self.labels[train]).decision_function(x)
            signs = np.where(self.labels[validation], 1.0, -1.0)
            loss = np.logaddexp(0.0, -signs * scores[validation]).mean()
            if loss < best_loss:
                best, best_loss = scores, loss
        return best


def activation_rows(x: Float64[np.ndarray, "n_samples d_in"], judge: Judge) -> list[ProbeRow]:
    """Probes that may read everything."""
    train = torch.from_numpy(judge.parts["train"])
    inputs, target = torch.from_numpy(x), torch.from_numpy(judge.labels).double()[:, None]
    ridge = Ridge(inputs[train]).fit(target[train])(inputs)[:, 0].numpy()
    return [judge.row("activation", "logistic", judge.logistic(x)), judge.row("activation", "ridge", ridge)]


def latent_rows(acts: SparseMatrix, judge: Judge) -> list[ProbeRow]:
    """Probes of the latents that `selected_probes` selects one by one."""
    target = torch.from_numpy(judge.labels).double()[:, None]
    selected = selected_probes(acts, target, judge.parts["train"])
    rows = []
    for k in N_LATENTS:
        chosen = tuple(selected.latents[0, :k].tolist())
        reads = "1 latent" if k == 1 else f"{k} latents"
        columns = acts[:, list(chosen)].toarray().astype(np.float64)
        rows.append(judge.row(reads, "logistic", judge.logistic(columns), chosen))
        rows.append(judge.row(reads, "ridge", selected.scores[k][:, 0].numpy(), chosen))
    return rows
