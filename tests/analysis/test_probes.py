import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score as sklearn_f1
from sklearn.metrics import roc_auc_score

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream
from sae_toolkit.analysis import probe_concept
from sae_toolkit.analysis.probe_scores import auroc_score, f1_score, rate_score
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.labels import Labelling, token_classes
from sae_toolkit.metrics.token_kinds import token_class
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

D, N_DOCUMENTS, LENGTH = 6, 60, 20
TEXTS = (" the", "7", ".")


class Planted(ActivationSource):
    """Axis 0 says whether concept "single" holds, axes 1 and 2 together "either"; noise elsewhere."""

    d_in = D

    def __init__(self, *, noise=0.05):
        generator = torch.Generator().manual_seed(0)
        n = N_DOCUMENTS * LENGTH
        self.on = torch.rand(n, 3, generator=generator) < torch.tensor([0.2, 0.15, 0.15])
        self.x = torch.zeros(n, D)
        self.x[:, :3] = self.on.float() * 2
        self.x += noise * torch.randn(n, D, generator=generator)
        self.tokens = torch.randint(3, (n,), generator=generator)

    def stream(self, batch_size, *, seed, split):
        return PlantedStream(self)

    def describe(self):
        return {"name": "planted"}


class PlantedStream(ActivationStream):
    def __init__(self, source):
        self.source, self.given = source, False

    def __next__(self):
        if self.given:
            raise StopIteration
        self.given = True
        n = len(self.source.x)
        return ActivationBatch(
            self.source.x,
            token_ids=self.source.tokens,
            positions=torch.arange(n) % LENGTH,
            document_ids=torch.arange(n) // LENGTH,
        )

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        del state


def labelling_of(source):
    on = source.on
    never = torch.zeros(len(on), dtype=torch.bool)
    columns = torch.stack([on[:, 0], on[:, 1] | on[:, 2], never], dim=1).float()
    return Labelling(
        name="planted",
        classes=("single", "either", "never"),
        of=lambda _batch: SparseRows.from_dense(columns),
        exclusive=False,
        contextual=True,
    )


SAE = FixedDictionary(torch.eye(D), coder=LinearTopK(3))


def test_a_concept_on_one_axis_has_one_latent():
    source = Planted()
    table = probe_concept(SAE, source, labelling_of(source), "single")
    for reads in ("activation", "1 latent", "5 latents"):
        for method in ("logistic", "ridge"):
            assert table.row(reads, method).f1.value == 1.0
            assert table.row(reads, method).auroc.value == 1.0
    assert table.row("1 latent").latents == (0,)
    assert table.row("5 latents").latents[0] == 0
    test = torch.arange(N_DOCUMENTS * LENGTH) // LENGTH % 4 == 3
    rate = float(source.on[test, 0].float().mean())
    assert table.base_rate.value == pytest.approx(rate)
    assert table.row("nothing", "always").f1.value == pytest.approx(2 * rate / (1 + rate))
    assert table.row("1 latent").f1.floor == pytest.approx(2 * rate / (1 + rate))
    assert table.row("nothing", "always").auroc.value == 0.5
    assert table.row("token", "counts").auroc.value == pytest.approx(0.5, abs=0.1)
    assert table.n_samples == {"train": 600, "validation": 300, "test": 300}


def test_a_concept_on_two_axes_needs_two_latents():
    source = Planted()
    table = probe_concept(SAE, source, labelling_of(source), "either")
    assert table.row("1 latent").f1.value < 0.8
    assert table.row("2 latents").f1.value == 1.0
    assert set(table.row("2 latents").latents) == {1, 2}
    assert table.row("1 latent").latents == table.row("5 latents").latents[:1]


def test_a_concept_that_the_token_decides():
    source = Planted(noise=1.0)
    table = probe_concept(SAE, source, token_classes(TEXTS), token_class("7"))
    assert table.row("token", "counts").f1.value == 1.0
    assert table.row("activation").auroc.value == pytest.approx(0.5, abs=0.15)


def test_impossible_concepts_are_refused():
    source = Planted()
    with pytest.raises(ValueError, match="Did you mean 'single'"):
        probe_concept(SAE, source, labelling_of(source), "singel")
    with pytest.raises(ValueError, match="at least 10"):
        probe_concept(SAE, source, labelling_of(source), "never")
    with pytest.raises(ValueError, match="no row '3 latents'"):
        probe_concept(SAE, source, labelling_of(source), "single").row("3 latents")


@pytest.fixture
def judged():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 15)
    shift = rng.normal(size=40)[groups]
    labels = rng.random(600) < 0.3
    scores = np.round(labels + shift + rng.normal(size=600), 1)  # with ties
    return scores, labels, groups


def test_values_are_those_of_scikit_learn(judged):
    scores, labels, groups = judged
    assert auroc_score(scores, labels, groups).value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert f1_score(scores > 0.5, labels, groups).value == pytest.approx(sklearn_f1(labels, scores > 0.5), abs=1e-12)
    assert rate_score(labels, groups).value == pytest.approx(labels.mean(), abs=1e-12)


def test_intervals_are_those_of_resampled_documents(judged):
    scores, labels, groups = judged
    rng = np.random.default_rng(1)
    aurocs, f1s, rates = [], [], []
    for _ in range(1000):
        drawn = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(40, size=40)])
        positive, negative = scores[drawn][labels[drawn]][:, None], scores[drawn][~labels[drawn]]
        aurocs.append((positive > negative).mean() + (positive == negative).mean() / 2)
        said = scores[drawn] > 0.5
        f1s.append(2 * (said & labels[drawn]).sum() / (said.sum() + labels[drawn].sum()))
        rates.append(labels[drawn].mean())
    found = (
        auroc_score(scores, labels, groups),
        f1_score(scores > 0.5, labels, groups),
        rate_score(labels, groups),
    )
    for score, values in zip(found, (aurocs, f1s, rates), strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        assert score.low == pytest.approx(low, abs=0.1 * (high - low))
        assert score.high == pytest.approx(high, abs=0.1 * (high - low))


def test_few_documents_give_no_interval(judged):
    scores, labels, groups = judged
    few = auroc_score(scores, labels, groups // 10)
    assert few.low is None
    assert few.high is None
