"""Explained variance and L0 by group: by hand, against scikit-learn, and adding up to the whole."""

from itertools import pairwise
from math import isnan

import numpy as np
import pytest
import torch
from fake_splicing import FakeSplicingSource
from sklearn.metrics import r2_score

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.by_group import ByGroup
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.labels import documents, linguistic, position_buckets, token_classes
from sae_toolkit.metrics.reconstruction import Reconstruction
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK

ANY_SAE = FixedDictionary(torch.eye(2), coder=LinearTopK(1))
TEXTS = (" cat", ".", "7", " Dog", "ing")
CLASSES = ("word_start", "punctuation", "digits", "capitalised", "continuation")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Data:
    def __init__(self, n=2000, d=5, scale=1.0):
        self.x = scale * (torch.randn(n, d, generator=generator()).double() + 3)
        self.tokens = torch.randint(5, (n,), generator=generator(1))
        noise = torch.randn(n, d, generator=generator(2)).double()
        self.reconstruction = self.x + scale * 0.2 * (1 + self.tokens[:, None]) * noise
        self.latents = torch.rand(n, 12, generator=generator(3)) * (torch.rand(n, 12, generator=generator(4)) < 0.3)
        self.documents = torch.arange(n) // 20

    def feed(self, metric, batch_size=300):
        for start in range(0, len(self.x), batch_size):
            part = slice(start, start + batch_size)
            batch = ActivationBatch(
                self.x[part].float(),
                token_ids=self.tokens[part],
                positions=torch.arange(len(self.x))[part] % 20,
                document_ids=self.documents[part],
            )
            metric.update(batch, SAEOutput(self.reconstruction[part].float(), self.latents[part]))
        return metric

    def scores(self, labellings=None, **kwargs):
        return self.feed(ByGroup([token_classes(TEXTS)] if labellings is None else labellings), **kwargs).compute(
            ANY_SAE
        )


def test_by_hand():
    # one dimension, mean 2 over all: group a has 0, 2, spread 4, error 1; group b has 4, 2, spread 4, error 8
    x = torch.tensor([[0.0], [2.0], [4.0], [2.0]])
    reconstruction = torch.tensor([[1.0], [2.0], [2.0], [4.0]])
    latents = torch.tensor([[1.0, 0], [1, 2], [0, 0], [0, 3]])
    metric = ByGroup([token_classes((" a", "."))])
    metric.update(ActivationBatch(x, token_ids=torch.tensor([0, 0, 1, 1])), SAEOutput(reconstruction, latents))
    scores = metric.compute(ANY_SAE)
    assert scores["explained_variance_token_class_word_start"].value == pytest.approx(1 - 1 / 4)
    assert scores["explained_variance_token_class_punctuation"].value == pytest.approx(1 - 8 / 4)
    assert scores["l0_token_class_word_start"].value == 1.5
    assert scores["l0_token_class_punctuation"].value == 0.5
    assert scores["l0_token_class_punctuation"].n == 2
    assert isnan(scores["l0_token_class_digits"].value)
    # norms 0, 2, 4, 2 with equal ones in order: quarters are the samples 0, 1, 3, 2
    assert [scores[f"l0_norm_quarter_{i}"].value for i in (1, 2, 3, 4)] == [1, 2, 1, 0]


def test_groups_add_up_to_the_whole():
    data = Data()
    scores = data.scores()
    whole = data.feed(Reconstruction()).compute(ANY_SAE)["explained_variance"].value
    spread = (data.x - data.x.mean(0)).square().sum(1)
    total = sum(
        scores[f"explained_variance_token_class_{name}"].value * float(spread[data.tokens == i].sum())
        for i, name in enumerate(CLASSES)
    )
    assert total / float(spread.sum()) == pytest.approx(whole, abs=1e-6)


def test_a_single_group_is_scikit_learns_r2():
    data = Data()
    data.tokens[:] = 1
    expected = r2_score(data.x, data.reconstruction, multioutput="variance_weighted")
    assert data.scores()["explained_variance_token_class_punctuation"].value == pytest.approx(expected, abs=1e-6)


def test_norm_quarters_against_a_loop():
    data = Data()
    scores = data.scores()
    order = np.argsort(data.x.float().norm(dim=1).numpy(), kind="stable")
    mean = data.x.mean(0)
    for i, quarter in enumerate(np.split(order, 4)):
        error = (data.x - data.reconstruction)[quarter].square().sum()
        spread = (data.x - mean)[quarter].square().sum()
        name = f"norm_quarter_{i + 1}"
        assert scores[f"explained_variance_{name}"].value == pytest.approx(float(1 - error / spread), abs=1e-5)
        expected = (data.latents[quarter] != 0).sum(1).double().mean()
        assert scores[f"l0_{name}"].value == pytest.approx(float(expected))


def test_worse_groups_are_told_apart_and_intervals_hold_the_value():
    scores = Data().scores()
    values = [scores[f"explained_variance_token_class_{name}"] for name in CLASSES]
    assert all(a.low > b.high for a, b in pairwise(values))
    assert all(score.low <= score.value <= score.high for score in values)


def test_perfect_and_mean():
    data = Data()
    data.reconstruction = data.x.float().double()
    assert all(s.value == 1 for n, s in data.scores().items() if "variance" in n and s.n)
    data.reconstruction = data.x.mean(0).expand_as(data.x)
    found = [s.value for n, s in data.scores().items() if "variance" in n and s.n]
    assert found == pytest.approx([0] * 9, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_scale_changes_nothing(scale):
    first, other = Data().scores(), Data(scale=scale).scores()
    for name, score in first.items():
        assert other[name].value == pytest.approx(score.value, abs=1e-5, nan_ok=True), name


def test_batches_change_nothing():
    labellings = [token_classes(TEXTS), position_buckets()]
    first, other = Data().scores(labellings), Data().scores(labellings, batch_size=7)
    for name, score in first.items():
        assert other[name].value == pytest.approx(score.value, abs=1e-9, nan_ok=True), name
        assert (other[name].low is None) == (score.low is None)


def test_zero_norms_and_constant_data():
    data = Data(n=100)
    data.x[:], data.reconstruction[:] = 0, 0
    scores = data.scores()
    assert scores["explained_variance_norm_quarter_1"].value == 1  # nothing to explain, nothing lost
    data.reconstruction[:] = 1
    assert isnan(data.scores()["explained_variance_norm_quarter_1"].value)


def test_what_makes_no_groups_is_refused():
    for labelling in (linguistic(TEXTS), documents()):
        with pytest.raises(ValueError, match="exclusive labellings of at most 32"):
            ByGroup([labelling])
    (metric,) = ByGroup.for_source(FakeSplicingSource())
    assert metric.labellings == ()
