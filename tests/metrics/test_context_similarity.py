"""Whether documents of strong activations are alike: topics against a look-up of the token."""

from math import isnan

import numpy as np
import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.context_similarity import ContextSimilarity, paired_documents, pairwise_cosines, texts_of
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK

ANY_SAE = FixedDictionary(torch.eye(2), coder=LinearTopK(1))
N_DOCUMENTS, LENGTH, N_TOPICS = 80, 30, 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def corpus():
    """Token ids and documents: token 0 everywhere, the others from 10 words of the document's topic."""
    documents = torch.arange(N_DOCUMENTS).repeat_interleave(LENGTH)
    topic = documents % N_TOPICS
    own = 1 + 10 * topic + torch.randint(10, (len(topic),), generator=generator())
    common = torch.rand(len(topic), generator=generator(1)) < 0.4
    return torch.where(common, 0, own), documents, topic


def scores_of(latents, tokens, documents, batch_size=700, order=None):
    order = torch.randperm(len(tokens), generator=generator(2)) if order is None else order
    metric = ContextSimilarity()
    for start in range(0, len(tokens), batch_size):
        part = order[start : start + batch_size]
        x = torch.zeros(len(part), 1)
        batch = ActivationBatch(x, token_ids=tokens[part], document_ids=documents[part])
        metric.update(batch, SAEOutput(x, latents[part]))
    return metric.compute(ANY_SAE)


def test_a_topic_latent_is_found_and_a_look_up_is_not(corpus):
    tokens, documents, topic = corpus
    strength = 1 + torch.rand(len(tokens), 40, generator=generator(3))
    topical = strength * ((topic[:, None] == torch.arange(40) % N_TOPICS) & (tokens == 0)[:, None])
    look_up = torch.rand(len(tokens), 200, generator=generator(4)) * (tokens == 0)[:, None]
    found = scores_of(topical, tokens, documents)
    assert found["context_similarity"].n == 40
    vectors = reference_vectors(tokens, documents)
    often = np.bincount(documents[tokens == 0])  # a document is as likely as it has occurrences
    alike = [reference_cosine(vectors, range(t, N_DOCUMENTS, N_TOPICS), often) for t in range(N_TOPICS)]
    expected = np.mean(alike) - reference_cosine(vectors, range(N_DOCUMENTS), often)
    assert expected > 0.2
    assert found["context_similarity"].value == pytest.approx(expected, abs=0.03)
    chance = scores_of(look_up, tokens, documents)["context_similarity"]
    assert chance.low < 0 < chance.high
    assert abs(chance.value) < 0.02
    # what fires on a topic's own words is alike, but not more than the token explains
    words = scores_of(strength * (tokens == 5)[:, None], tokens, documents)
    assert words["context_similarity_top"].value > 0.7
    assert abs(words["context_similarity"].value) < 0.03


def reference_vectors(tokens, documents):
    counts = np.zeros((N_DOCUMENTS, 41))
    np.add.at(counts, (documents.numpy(), tokens.numpy()), 1)
    vectors = counts * (np.log((1 + N_DOCUMENTS) / (1 + (counts > 0).sum(0))) + 1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference_cosine(vectors, chosen, weights=None):
    pairs = [(a, b) for a in chosen for b in chosen if a != b]
    weights = np.ones(len(vectors)) if weights is None else weights
    return np.average([vectors[a] @ vectors[b] for a, b in pairs], weights=[weights[a] * weights[b] for a, b in pairs])


def test_cosines_against_a_loop(corpus):
    tokens, documents, _ = corpus
    texts, vectors = texts_of(tokens.numpy(), documents.numpy()), reference_vectors(tokens, documents)
    chosen = [[0, 4, 8], [1, 2, 3, 7, 9]]
    expected = [reference_cosine(vectors, one) for one in chosen]
    assert pairwise_cosines(chosen, texts.vectors) == pytest.approx(expected, abs=1e-12)


def test_pairs_share_a_token_and_no_document_comes_twice(corpus):
    tokens, documents, _ = corpus
    texts = texts_of(tokens.numpy(), documents.numpy())
    strongest = np.flatnonzero(tokens.numpy() == 5)
    top, control = paired_documents(strongest, texts, np.random.default_rng(0))
    assert len(top) == len(control) == len(set(top)) == len(set(control)) == 10
    has_five = set(documents[tokens == 5].tolist())
    assert set(top) | set(control) <= has_five


def test_a_token_of_one_document_has_itself_for_control():
    texts = texts_of(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 1]))
    assert paired_documents(np.array([0]), texts, np.random.default_rng(0)) == ([0], [0])


def test_scale_order_and_batches_change_nothing(corpus):
    tokens, documents, _ = corpus
    latents = torch.rand(len(tokens), 6, generator=generator(5)) * (tokens % 6 == 0)[:, None]
    first = scores_of(latents, tokens, documents)
    assert repr(scores_of(latents * 1e3, tokens, documents, batch_size=11)) == repr(first)


def test_nothing_to_say(corpus):
    tokens, documents, _ = corpus
    assert isnan(scores_of(torch.zeros(len(tokens), 3), tokens, documents)["context_similarity"].value)
    few = (documents < 4)[:, None].float()  # fires often, but in four documents only
    assert scores_of(few, tokens, documents)["context_similarity"].n == 0
    with pytest.raises(ValueError, match="ContextSimilarity needs document_ids"):
        ContextSimilarity().update(
            ActivationBatch(torch.zeros(2, 1), token_ids=torch.zeros(2).long()),
            SAEOutput(torch.zeros(2, 1), torch.zeros(2, 3)),
        )
