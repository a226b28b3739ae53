import json
from math import isnan
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.sparse import csr_matrix
from toy import ToySource

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary, random_directions
from sae_toolkit.metrics.evaluate import default_metrics, full_metrics
from sae_toolkit.metrics.first_letter import PER_WORD, FirstLetter, earlier_uses, first_letters, main_latents
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK

LETTERS, WORDS, USES, D = 4, 120, 3, 40
SUFFIXES = [x + y for x in ascii_lowercase for y in ascii_lowercase][:WORDS]
TEXTS = [f" {letter}{suffix}" for letter in "abcd" for suffix in SUFFIXES] + [" the-end", "abc", " 12", ""]
IDS = torch.arange(LETTERS * WORDS).repeat(USES)
LETTER = IDS // WORDS


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


WORD_DIRECTIONS = torch.cat(
    [torch.zeros(LETTERS * WORDS, LETTERS), unit(torch.randn(480, 36, generator=torch.Generator().manual_seed(0)))], 1
)
ACTIVATIONS = torch.eye(D)[LETTER] + 0.3 * WORD_DIRECTIONS[IDS] + 0.7
"""Letter c of a word: 1 along axis c. The word itself: .3 along a direction of its own. An offset on top."""


def metric_fed(latents, *, batch_size=1000, activations=ACTIVATIONS, ids=IDS, texts=TEXTS):
    metric = FirstLetter(texts)
    for part in torch.arange(len(ids)).split(batch_size):
        batch = ActivationBatch(activations[part], token_ids=ids[part])
        metric.update(batch, SAEOutput(activations[part], latents[part]))
    return metric


def scores_of(latents, decoder, **changes):
    scores = metric_fed(latents, **changes).compute(FixedDictionary(decoder, coder=LinearTopK(1)))
    return {name.removeprefix("first_letter_"): score.value for name, score in scores.items()}


PURE = torch.eye(LETTERS)[LETTER]
"""One latent per letter."""


def scored_words(metric):
    """Which of the samples are of the half of the vocabulary that is scored."""
    return metric.scored_half[IDS]


def test_pure_letter_latents():
    scores = scores_of(PURE, torch.eye(D)[:LETTERS])
    assert scores == {"absorption": 0, "recall": 1, "main_f1": 1, "main_latents": 1, "probe_f1": 1}


@pytest.mark.parametrize(
    ("along_letter", "strength", "absorbed"),
    [
        (0.8, 1.0, True),  # carries .8 of the letter's projection (1 above the others' mean), cosine .8 * .87
        (0.8, 0.45, False),  # carries .36
        (0.8, 0.55, True),  # carries .44
        (0.05, 20.0, False),  # carries 1, but cosine .04: an unrelated direction
        (0.0, 1.0, False),
    ],
)
def test_words_with_a_latent_of_their_own_by_hand(along_letter, strength, absorbed):
    # two words in three of the letter a silence its latent and have latents that also point along the letter
    own = (LETTER == 0) & (IDS % 3 != 0)
    latents = torch.cat([PURE * ~own[:, None], torch.zeros(len(IDS), WORDS)], 1)
    latents[own, LETTERS + IDS[own]] = strength
    words = along_letter * torch.eye(D)[0] + (1 - along_letter**2) ** 0.5 * WORD_DIRECTIONS[:WORDS]
    decoder = torch.cat([torch.eye(D)[:LETTERS], words])
    scores = scores_of(latents, decoder)
    asked = scored_words(metric_fed(latents)) & (LETTER == 0)
    share = float((own & asked).sum() / asked.sum())
    assert 0.5 < share < 0.8
    assert scores["absorption"] == pytest.approx(share / LETTERS if absorbed else 0)
    assert scores["recall"] == pytest.approx((1 - share + 3) / LETTERS)
    assert scores["main_latents"] == 1  # one word's latent adds too little to count as a main one
    assert scores["probe_f1"] == 1


def test_a_letter_split_over_two_latents_has_two_main_latents_and_no_absorption():
    halves = torch.stack([PURE[:, 0] * (IDS % 2), PURE[:, 0] * (1 - IDS % 2)], 1)
    scores = scores_of(torch.cat([halves, PURE[:, 1:]], 1), torch.eye(D)[[0, 0, 1, 2, 3]])
    assert scores == {"absorption": 0, "recall": 1, "main_f1": 1, "main_latents": 5 / 4, "probe_f1": 1}


def test_an_untrained_dictionary_absorbs_little_and_the_recall_says_why():
    g = torch.Generator().manual_seed(1)
    latents = torch.rand(len(IDS), 50, generator=g) * (torch.rand(len(IDS), 50, generator=g) < 0.05)
    scores = scores_of(latents, torch.randn(50, D, generator=g))
    assert scores["absorption"] < 0.15
    assert scores["recall"] < 0.5
    assert scores["probe_f1"] == 1


def test_a_latent_that_is_always_on():
    # it is no main latent beside one that knows the letter (F1 .4 against 1)
    decoder = torch.cat([torch.eye(D)[:LETTERS], torch.ones(1, D)])
    assert scores_of(torch.cat([PURE, torch.ones(len(IDS), 1)], 1), decoder)["main_latents"] == 1
    # alone it has perfect recall and hides all absorption, but its F1 is that of knowing nothing: 2 / (1 + 4)
    scores = scores_of(torch.ones(len(IDS), 1), torch.ones(1, D))
    assert (scores["absorption"], scores["recall"]) == (0, 1)
    assert scores["main_f1"] == pytest.approx(0.4, abs=0.02)


def test_activations_that_do_not_spell_show_in_the_probe_and_leave_nothing_to_ask():
    noise = torch.randn(len(IDS), D, generator=torch.Generator().manual_seed(2))
    scores = scores_of(PURE, torch.eye(D)[:LETTERS], activations=noise)
    assert scores.pop("probe_f1") < 0.5
    assert all(isnan(value) for value in scores.values())


DATA = Path(__file__).parents[2].parent / "shared/data"


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not beside this checkout")
def test_a_real_model_of_512_tokens_does_not_spell():
    ids_of = json.loads((DATA / "stories260K/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    texts = [text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ") for text in sorted(ids_of, key=ids_of.get)]
    assert int((first_letters(texts) >= 0).sum()) > 50
    file = load_file(DATA / "activations/stories260K_blocks.2.hook_resid_post.safetensors")
    x, ids = file["activations"][:60_000].float(), file["token_ids"][:60_000]
    sae = FixedDictionary(random_directions(128, 64, seed=0), coder=LinearTopK(4))
    metric = FirstLetter(texts)
    for part in torch.arange(len(x)).split(5000):
        metric.update(ActivationBatch(x[part], token_ids=ids[part]), sae.forward(x[part]))
    scores = metric.compute(sae)
    assert 0 < scores["first_letter_probe_f1"].value < 0.5  # few words begin alike: letters are not what it is about
    assert isnan(scores["first_letter_absorption"].value)


def test_batches_order_scale_and_dead_latents_change_nothing():
    own = (LETTER == 0) & (IDS % 3 != 0)
    latents = torch.cat([PURE * ~own[:, None], own[:, None].float()], 1)
    decoder = torch.eye(D)[[0, 1, 2, 3, 0]]
    order = [4, 2, 0, 1, 3]
    changed = torch.cat([latents[:, order], torch.zeros(len(IDS), 1)], 1)
    first = scores_of(latents, decoder)
    assert first["main_latents"] == 5 / 4  # one latent for many words is a main one
    assert scores_of(changed, torch.cat([decoder[order], torch.zeros(1, D)]), batch_size=7) == first


def test_too_few_words_have_no_answer():
    few = IDS % WORDS < 20
    scores = scores_of(PURE[few], torch.eye(D)[:LETTERS], activations=ACTIVATIONS[few], ids=IDS[few])
    assert all(isnan(value) for value in scores.values())


def test_a_frequent_word_counts_a_few_times_only():
    ids = torch.zeros(100, dtype=torch.long)
    metric = metric_fed(torch.ones(100, 2), ids=ids, activations=ACTIVATIONS[ids], batch_size=9)
    assert sorted(len(sample.all_letters()) for sample in (metric.fitted, metric.scored)) == [0, PER_WORD]


def test_which_tokens_are_words():
    texts = [" Apple", "apple", " zoo", " x1", " ", "", " été", " a b", "B"]
    assert first_letters(texts).tolist() == [0, -1, 25, -1, -1, -1, -1, -1, -1]
    assert first_letters(["Apple", "the", "b2", "."]).tolist() == [0, 19, -1, -1]  # a tokenizer without spaces


def test_earlier_uses_is_a_plain_count():
    ids = torch.tensor([5, 3, 5, 5, 0, 3])
    expected = [int((ids[:i] == ids[i]).sum()) for i in range(6)]
    assert earlier_uses(ids).tolist() == expected == [0, 0, 1, 2, 0, 1]


def test_main_latents_by_hand():
    # on in samples 0-3. Latent 0 fires in 0 1 2 (F1 6/7), 1 in 3 (adds the last: 1), 2 in 0 and 5, 3 everywhere (8/12)
    acts = np.zeros((8, 4))
    acts[[0, 1, 2], 0], acts[3, 1], acts[[0, 5], 2], acts[:, 3] = 1, 1, 1, 1
    assert main_latents(csr_matrix(acts), np.arange(4)) == [0, 1]
    assert main_latents(csr_matrix(acts[:, 3:]), np.arange(4)) == [0]
    assert main_latents(csr_matrix(np.zeros((8, 2))), np.arange(4)) == []


class WordSource(ToySource):
    @property
    def token_texts(self):
        return TEXTS


def test_it_is_asked_where_tokens_have_text_and_everything_is():
    assert any(isinstance(metric, FirstLetter) for metric in full_metrics(WordSource()))
    assert not any(isinstance(metric, FirstLetter) for metric in default_metrics(WordSource()))
    assert not any(isinstance(metric, FirstLetter) for metric in full_metrics(ToySource()))


def test_a_batch_without_tokens_is_an_error():
    with pytest.raises(ValueError, match="token_ids=None"):
        FirstLetter(TEXTS).update(ActivationBatch(torch.ones(1, 2)), SAEOutput(torch.ones(1, 2), torch.ones(1, 3)))
