"""Absorption in real language models: is the latent of "starts with s" silent where a word has one of its own?

Chanin et al. 2024 (arXiv 2409.14507, sections 4 and 5) in the projection variant of SAEBench (arXiv 2503.09532). Ours
differs: samples are words in running text, not spelling prompts; probes are ridge regressions; main latents are chosen
by what they add to the F1 of "any of them fires", not by a sparse logistic probe; activations are centred.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column, KeptColumns, matrix_of, select_rows
from sae_toolkit.metrics.detection import Levels
from sae_toolkit.metrics.firing_matching import positive
from sae_toolkit.metrics.matching import ROUNDING, unit_rows
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.probe import Ridge, dense_levels
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows

N_LETTERS = 26
WORDS_PER_HALF = 10_000
"""Tokens kept of each half of the vocabulary: 80 MB in all at d_in = 1,000."""
PER_WORD = 16
"""Occurrences of one token that are kept, or "the" would be the letter t."""
ENOUGH_WORDS = 50
"""Tokens of a letter in either half, from which it is judged."""
ENOUGH_FOUND = 10
"""True positives of its probe, from which absorption and recall are."""
SPELLS = 0.5
"""F1 of its probe on unseen words, from which they are: otherwise nothing is there to be absorbed."""
MOST_MAIN_LATENTS = 10
ADDED_F1 = 0.03
"""What one more main latent must add to the F1 of "any of them fires" (tau_fs of the paper)."""
CANDIDATES = 32
"""Latents of highest F1, among which main latents are looked for."""
LEANS_ON_PROBE = 0.1
"""cos of a latent with the probe from which it may stand in for the main latents."""
STANDS_IN = 0.4
"""Share of the activation's projection on the probe that it must carry."""


class FirstLetter(Metric):
    """Over letters a to z with at least 50 words in either half. A word is a token of ASCII letters after a space.

    (Where no token begins with a space, any token of letters.) A fixed random half of the vocabulary, with at most 16
    uses of a token and 10,000 in all, fits probes and chooses main latents; the other half, so words never seen, is
    scored.
    `first_letter_absorption`: of the probe's true positives, the share in which all main latents are silent and another
    latent j with cos(d_j, probe) >= .1 carries >= .4 of the projection: z_j d_j . p >= .4 (x - mean) . p, p the probe.
    `first_letter_recall`: the share in which a main latent fires. `first_letter_main_f1`: F1 of "a main latent fires"
    as detector of the letter, which a latent that always fires does not raise. An untrained SAE absorbs little, because
    it has no main latents to speak of: read absorption beside these two.
    `first_letter_main_latents`: how many main latents a letter has (splitting). `first_letter_probe_f1`: F1 of the
    probes. A letter whose probe has F1 below .5 is not spelled by the model and left out of all but this. The cosine of
    .1 is SAEBench's, meant for thousands of dimensions; in a hundred, chance reaches it (1 / sqrt(d_in)): compare with
    the floor. Means and intervals over letters.
    """

    always_on = False

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [] if source.token_texts is None else [cls(source.token_texts)]

    def __init__(self, token_texts: Sequence[str]) -> None:
        self.letters = first_letters(token_texts)
        order = torch.randperm(len(self.letters), generator=generator_for(0, "halves of the vocabulary"))
        self.scored_half = order % 2 == 1
        self.n_seen = torch.zeros(len(self.letters), dtype=torch.long)
        self.fitted, self.scored = WordSample(), WordSample()

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        if batch.token_ids is None:
            raise ValueError(
                "FirstLetter: the batch has token_ids=None, but words are looked up by token. Use a source that gives "
                "them, or leave this metric out."
            )
        ids = batch.token_ids.cpu().long()
        wanted = (self.letters[ids] >= 0) & (self.n_seen[ids] + earlier_uses(ids) < PER_WORD)
        self.n_seen += torch.bincount(ids, minlength=len(self.n_seen))
        for sample, kept in (
            (self.fitted, wanted & ~self.scored_half[ids]),
            (self.scored, wanted & self.scored_half[ids]),
        ):
            sample.add(batch.activations.detach().cpu(), self.letters[ids], output.sparse_latents(), kept)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        names = ("absorption", "recall", "main_f1", "main_latents", "probe_f1")
        found = torch.full((N_LETTERS, len(names)), torch.nan, dtype=torch.float64)
        counts = [torch.bincount(sample.all_letters(), minlength=N_LETTERS) for sample in (self.fitted, self.scored)]
        judged = (torch.minimum(*counts) >= ENOUGH_WORDS).nonzero()[:, 0]
        if len(judged):
            found[judged] = judge_letters(self.fitted, self.scored, judged, sae.decoder_directions())
        return {
            f"first_letter_{name}": mean_score(column, id=f"first_letter_{name}/v1")
            for name, column in zip(names, found.T, strict=True)
        }


def first_letters(token_texts: Sequence[str]) -> Int[Tensor, " n_tokens"]:
    """0 to 25 for tokens that begin a word of ASCII letters, -1 for all others."""
    spaced = any(text.startswith(" ") for text in token_texts)
    words = [text.removeprefix(" ") if text.startswith(" ") == spaced else "" for text in token_texts]
    return torch.tensor([ord(w[0].lower()) - ord("a") if w.isascii() and w.isalpha() else -1 for w in words])


def earlier_uses(ids: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """How often each token stands earlier in the batch."""
    order = ids.argsort(stable=True)
    ordered = ids[order]
    places = torch.arange(len(ids))
    starts = torch.searchsorted(ordered, ordered)
    uses = torch.empty_like(places)
    uses[order] = places - starts
    return uses


class WordSample:
    """The first words of one half of the vocabulary: activations, letters and latents."""

    def __init__(self) -> None:
        self.latents = KeptColumns(WORDS_PER_HALF)
        self.activations: list[Tensor] = []
        self.letters: list[Tensor] = []

    def add(
        self, activations: Tensor, letters: Int[Tensor, " batch"], latents: SparseRows, kept: Bool[Tensor, " batch"]
    ) -> None:
        """Takes in the kept samples of a batch that still fit."""
        left = WORDS_PER_HALF - self.latents.n_samples
        self.activations.append(activations[kept][:left].clone())
        self.letters.append(letters[kept][:left])
        self.latents.update(select_rows(latents, kept))

    def all_letters(self) -> Int[Tensor, " n_words"]:
        return torch.cat(self.letters) if self.letters else torch.zeros(0, dtype=torch.long)

    def all_activations(self) -> Float64[Tensor, "n_words d_in"]:
        return torch.cat(self.activations).double()


def judge_letters(
    fitted: WordSample, scored: WordSample, letters: Int[Tensor, " n"], decoder: Tensor
) -> Float64[Tensor, "n 5"]:
    """Absorption, recall and F1 of main latents, how many they are, and the probe's F1, of each letter."""
    labels, truth = (sample.all_letters()[:, None] == letters for sample in (fitted, scored))
    ridge = Ridge(fitted.all_activations())
    weights, offsets = ridge.weights(labels.double()), labels.double().mean(0)
    known = ridge.centred @ weights + offsets
    asked = (scored.all_activations() - ridge.mean) @ weights
    fires, acts = (
        matrix_of([positive(column) for column in sample.latents.columns()], sample.latents.n_samples)
        for sample in (fitted, scored)
    )
    directions = weights / weights.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    units, raw = unit_rows(decoder), decoder.detach().cpu().double()
    rows = []
    for i in range(len(letters)):
        on, off = (column_of(table[:, i]) for table in (labels, truth))
        threshold = dense_levels(known[:, i], on).best_threshold()
        f1 = dense_levels(asked[:, i] + offsets[i], off).f1_over(threshold)
        true_positives = (truth[:, i] & (asked[:, i] + offsets[i] > threshold)).numpy()
        if f1 < SPELLS:
            rows.append((*[float("nan")] * 4, f1))
            continue
        main = main_latents(fires, on.samples)
        projection = (asked[:, i] / weights[:, i].norm()).numpy()
        may_stand_in = (units @ directions[:, i]).numpy() >= LEANS_ON_PROBE - ROUNDING
        may_stand_in[main] = False
        written = (raw @ directions[:, i]).numpy() * may_stand_in
        shares = absorbed_and_recalled(acts[true_positives], projection[true_positives], main, written)
        speaks = column_of(torch.from_numpy(any_fires(acts, main)))
        rows.append((*shares, Levels(speaks, off, len(truth)).f1_over(0.0), len(main), f1))
    return torch.tensor(rows, dtype=torch.float64)


def column_of(on: Bool[Tensor, " n"]) -> Column:
    """1 where a label holds."""
    samples = on.nonzero()[:, 0].numpy()
    return Column(samples, np.ones(len(samples)))


def main_latents(acts: Any, on: np.ndarray) -> list[int]:
    """Latents that together best detect a label: the best one, then those that add to the F1 of "any of them fires"."""
    n_fires, hits = (np.asarray((part > 0).sum(axis=0)).ravel() for part in (acts, acts[on]))
    f1 = 2 * hits / (n_fires + len(on)).clip(min=1)
    candidates = [int(j) for j in np.argsort(-f1, kind="stable")[:CANDIDATES] if hits[j] > 0]
    fires = acts[:, candidates].toarray() > 0
    label = np.zeros(acts.shape[0], dtype=bool)
    label[on] = True
    chosen: list[int] = []
    covered, reached = np.zeros_like(label), -np.inf
    while len(chosen) < min(MOST_MAIN_LATENTS, len(candidates)):
        unions = fires | covered[:, None]
        reaches = 2 * unions[label].sum(axis=0) / (unions.sum(axis=0) + label.sum())
        best = int(reaches.argmax())
        if reaches[best] < reached + ADDED_F1:
            break
        chosen.append(candidates[best])
        covered, reached = unions[:, best], reaches[best]
    return chosen


def any_fires(acts: Any, latents: list[int]) -> Bool[np.ndarray, " n"]:
    """Whether any of some latents fires, sample by sample."""
    return np.asarray((acts[:, latents] > 0).sum(axis=1)).ravel() > 0


def absorbed_and_recalled(
    acts: Any, projection: np.ndarray, main: list[int], written: np.ndarray
) -> tuple[float, float]:
    """Among true positives: the share that is absorbed, and that in which a main latent fires; NaN if they are too few.

    `written[j]`: what one unit of latent j adds along the probe, 0 where it may not stand in.
    """
    if len(projection) < ENOUGH_FOUND:
        return float("nan"), float("nan")
    silent = ~any_fires(acts, main)
    carried = acts.multiply(written[None, :]).max(axis=1).toarray().ravel()
    absorbed = silent & (projection > 0) & (carried >= STANDS_IN * projection)
    return float(absorbed.mean()), float(1 - silent.mean())
