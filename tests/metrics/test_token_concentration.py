"""How many tokens a latent fires on."""

from math import exp, isnan

import numpy as np
import pytest
import torch
from fake_splicing import FakeSplicingSource
from scipy.stats import entropy

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.token_concentration import TokenConcentration
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK

ANY_SAE = FixedDictionary(torch.eye(2), coder=LinearTopK(1))


def scores_of(latents, token_ids, batch_size=500):
    metric = TokenConcentration()
    for start in range(0, len(latents), batch_size):
        part = slice(start, start + batch_size)
        x = torch.zeros(len(latents[part]), 1)
        metric.update(ActivationBatch(x, token_ids=token_ids[part]), SAEOutput(x, latents[part]))
    return metric.compute(ANY_SAE)


@pytest.fixture
def tokens():
    return torch.randint(20, (2000,), generator=torch.Generator().manual_seed(0)) * 7


def blind(n, rate=0.1, seed=1):
    return (torch.rand(2000, n, generator=torch.Generator().manual_seed(seed)) < rate).float()


def test_a_latent_per_token(tokens):
    scores = scores_of((tokens[:, None] == 7 * torch.arange(20)).float(), tokens)
    assert scores["effective_tokens"].value == pytest.approx(1)
    assert scores["token_concentration"].value == pytest.approx(1)
    assert scores["token_concentration"].n == 20


def test_by_hand(tokens):
    # fires on two tokens, 30 and 60 times: H = ln 3 - 2/3 ln 2
    tokens = torch.tensor([5] * 30 + [8] * 60 + [9] * 910)
    latents = torch.zeros(1000, 3)
    latents[:90, 0] = 0.5
    latents[:29, 1] = 1  # 29 fires are not enough
    scores = scores_of(latents, tokens)
    assert scores["effective_tokens"].value == pytest.approx(3 / 2 ** (2 / 3))
    assert scores["effective_tokens"].n == 1


def test_a_blind_latent_scores_like_shuffled_tokens(tokens):
    scores = scores_of(blind(60), tokens)
    assert abs(scores["token_concentration"].value) < 0.005
    found, shuffled = scores["effective_tokens"], scores["effective_tokens_shuffled"]
    assert found.value == pytest.approx(shuffled.value, abs=0.15)
    # independent reference: latents of 200 random samples
    rng = np.random.default_rng(3)
    expected = [
        exp(entropy(np.bincount(rng.choice(tokens.numpy(), (rng.random(2000) < 0.1).sum(), replace=False))))
        for _ in range(200)
    ]
    assert shuffled.value == pytest.approx(np.mean(expected), abs=0.15)


def test_few_fires_are_not_taken_for_concentration(tokens):
    rare = blind(300, rate=0.02)  # about 40 fires on 20 tokens: exp(H) is far below 20 by itself
    scores = scores_of(rare, tokens)
    assert scores["effective_tokens"].value < 17
    assert abs(scores["token_concentration"].value) < 0.01


def test_scale_order_and_batches_change_nothing(tokens):
    latents = blind(10) * torch.rand(2000, 10, generator=torch.Generator().manual_seed(2))
    first = scores_of(latents, tokens)
    other = scores_of(latents[:, torch.arange(9, -1, -1)] * 1e4, tokens, batch_size=7)
    for name, score in first.items():
        assert other[name].value == pytest.approx(score.value), name


def test_nothing_to_say(tokens):
    assert isnan(scores_of(torch.zeros(2000, 3), tokens)["effective_tokens"].value)
    assert isnan(scores_of(torch.ones(2000, 3), torch.ones(2000).long())["token_concentration"].value)
    with pytest.raises(ValueError, match="TokenConcentration needs token_ids"):
        TokenConcentration().update(ActivationBatch(torch.zeros(2, 1)), SAEOutput(torch.zeros(2, 1), torch.zeros(2, 3)))
    assert TokenConcentration.for_source(FakeSplicingSource()) == []
