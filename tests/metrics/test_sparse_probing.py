"""Sparse probing: perfect, chance, contextual, and what scale, order, batches and silence do."""

from math import isnan

import pytest
import torch
from fake_splicing import FakeSplicingSource

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth.presets import dataset_a
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.labels import Labelling, linguistic, position_buckets
from sae_toolkit.metrics.sparse_probing import SparseProbing
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

ANY_SAE = FixedDictionary(torch.eye(2), coder=LinearTopK(1))
N_DOCUMENTS, LENGTH = 100, 40
N = N_DOCUMENTS * LENGTH
TEXTS = (" not", " the", " cats", ".", " Slowly", " we", " is", " two", " walking", " walked")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tokens():
    return torch.randint(len(TEXTS), (N,), generator=generator())


def metric_of(latents, x, tokens, labelling, batch_size=1000):
    metric = SparseProbing([labelling])
    numbers, tokens = torch.arange(len(x)), tokens[: len(x)]
    documents, positions = numbers // LENGTH, numbers % LENGTH
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        batch = ActivationBatch(
            x[part], token_ids=tokens[part], positions=positions[part], document_ids=documents[part]
        )
        metric.update(batch, SAEOutput(x[part], latents[part]))
    return metric


def scores_of(*args, **kwargs):
    return metric_of(*args, **kwargs).compute(ANY_SAE)


def random_latents(n, seed=1):
    strengths = torch.rand(N, n, generator=generator(seed))
    return strengths * (torch.rand(N, n, generator=generator(seed + 1)) < 0.1)


def test_one_latent_per_concept_is_perfect(tokens):
    labelling = linguistic(TEXTS)
    labels = labelling.of(ActivationBatch(torch.zeros(N, 1), token_ids=tokens)).to_dense()
    latents = torch.cat([random_latents(20), labels], dim=1)
    x = torch.nn.functional.one_hot(tokens, len(TEXTS)).float()
    scores = scores_of(latents, x, tokens, labelling)
    assert scores["sparse_probe_f1_linguistic_k1"].n == 9
    for name in ("sparse_probe_f1_linguistic_k1", "activation_probe_f1_linguistic", "token_probe_f1_linguistic"):
        assert scores[name].value == 1, name
    assert not any("given_token" in name for name in scores)


def test_chance_is_the_floor(tokens):
    x = torch.randn(N, 8, generator=generator(2))
    scores = scores_of(random_latents(50), x, tokens, linguistic(TEXTS))
    floor = scores["always_f1_linguistic"].value
    assert floor == pytest.approx(2 * 0.1 / 1.1, abs=0.03)  # every concept holds for about one token of ten
    for name in ("sparse_probe_f1_linguistic_k1", "sparse_probe_f1_linguistic_k5", "activation_probe_f1_linguistic"):
        assert scores[name].value == pytest.approx(floor, abs=0.03), name


def halves_of_the_document():
    """A label that no token gives away: the first or the second half of a document."""

    def of(batch):
        late = (batch.positions >= LENGTH // 2).long()
        return SparseRows.from_dense(torch.stack([1 - late, late], dim=1).float())

    return Labelling(name="half", classes=("early", "late"), of=of, exclusive=True, contextual=True)


def test_what_a_context_says_is_judged_given_the_token(tokens):
    late = torch.arange(N) % LENGTH >= LENGTH // 2
    x = torch.randn(N, 4, generator=generator(3))
    look_up = torch.nn.functional.one_hot(tokens, len(TEXTS)).float()
    knowing = torch.cat([look_up, late[:, None].float()], dim=1)
    blind, knows = (scores_of(latents, x, tokens, halves_of_the_document()) for latents in (look_up, knowing))
    assert blind["sparse_probe_auroc_half_given_token_k5"].value == 0.5
    assert knows["sparse_probe_auroc_half_given_token_k1"].value == 1
    assert blind["activation_probe_auroc_half_given_token"].value == pytest.approx(0.5, abs=0.05)
    assert "token_probe_auroc_half_given_token" not in blind


def test_two_latents_hold_what_one_does_not(tokens):
    labelling = only(linguistic((" not", " never", " the", ".", ",", "!", "?", ";", ":", "-")), "negation")
    latents = torch.cat([(tokens == 0)[:, None], (tokens == 1)[:, None]], dim=1).float()
    scores = scores_of(latents, torch.zeros(N, 2), tokens, labelling)
    # negation is two of ten tokens; one latent finds half of it: F1 = 2 * .5 / 1.5
    assert scores["sparse_probe_f1_linguistic_k1"].value == pytest.approx(2 / 3, abs=0.03)
    assert scores["sparse_probe_f1_linguistic_k2"].value == 1


def only(labelling, name):
    column = labelling.classes.index(name)

    def of(batch):
        return SparseRows.from_dense(labelling.of(batch).to_dense()[:, [column]])

    return Labelling(name=labelling.name, classes=(name,), of=of, exclusive=False, contextual=False)


def test_scale_order_and_batches_change_nothing(tokens):
    latents, x = random_latents(12), torch.randn(N, 4, generator=generator(3))
    latents[:, 0] *= tokens == 0
    first = scores_of(latents, x, tokens, linguistic(TEXTS))
    order = torch.randperm(12, generator=generator(4))
    other = scores_of((latents * torch.logspace(-2, 4, 12))[:, order], x, tokens, linguistic(TEXTS), batch_size=7)
    for name, score in first.items():
        assert other[name].value == pytest.approx(score.value, abs=1e-9), name


def test_junk_and_duplicates_hold_nothing(tokens):
    dense = torch.ones(N, 1)
    junk = torch.zeros(N, 300)
    junk[torch.randint(N, (300,), generator=generator(5)), torch.arange(300)] = 1e6
    copies = (tokens == 0).float()[:, None].expand(N, 50)
    x = torch.zeros(N, 1)
    scores = scores_of(torch.cat([dense, junk, copies], dim=1), x, tokens, linguistic(TEXTS))
    floor = scores["always_f1_linguistic"].value
    # one of nine concepts (negation) is held, by fifty latents; the others are at the floor
    expected = (1 + 8 * floor) / 9
    assert scores["sparse_probe_f1_linguistic_k1"].value == pytest.approx(expected, abs=0.03)
    assert scores["sparse_probe_f1_linguistic_k5"].value == pytest.approx(expected, abs=0.03)


def test_silence_and_too_few_samples(tokens):
    x = torch.zeros(N, 1)
    silent = scores_of(torch.zeros(N, 6), x, tokens, linguistic(TEXTS))
    assert silent["sparse_probe_f1_linguistic_k5"].n == 9
    assert all(not isnan(score.value) for score in silent.values())
    few = scores_of(torch.ones(20, 6), x[:20], tokens, position_buckets())
    assert all(isnan(score.value) and score.n == 0 for score in few.values())
    assert few.keys() == scores_of(random_latents(6), x, tokens, position_buckets()).keys()


def test_true_features():
    source = SuperpositionSource(dataset_a(seed=0))
    assert SparseProbing.for_source(FakeSplicingSource()) == []
    (metric,) = SparseProbing.for_source(source)
    truth = FixedDictionary(source.directions, coder=LinearTopK(6))
    batch = next(source.stream(8000, seed=0, split="eval"))
    metric.update(batch, truth.forward(batch.activations))
    scores = metric.compute(truth)
    assert scores["sparse_probe_f1_feature_k1"].n == 64
    assert scores["sparse_probe_f1_feature_k1"].low > 3 * scores["always_f1_feature"].value
