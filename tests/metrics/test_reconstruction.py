import pytest
import torch
from sklearn.metrics import r2_score

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.reconstruction import Reconstruction, median_with_interval
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK

ANY_SAE = FixedDictionary(torch.eye(2), coder=LinearTopK(1))


def scores_of(x, reconstruction, *, batch_size=64, document_ids=None):
    metric = Reconstruction()
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        documents = None if document_ids is None else document_ids[part]
        output = SAEOutput(reconstruction[part], torch.zeros(len(x[part]), 1))
        metric.update(ActivationBatch(activations=x[part], document_ids=documents), output)
    return metric.compute(ANY_SAE)


@pytest.fixture
def x():
    return torch.randn(1000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1, 9)


@pytest.fixture
def reconstruction(x):
    return 0.8 * x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_perfect_reconstruction(x):
    scores = scores_of(x, x.clone())
    assert scores["explained_variance"].value == 1
    assert scores["fvu"].value == scores["nmse"].value == 0
    assert scores["shrinkage"].value == pytest.approx(1)
    assert scores["relative_reconstruction_bias"].value == pytest.approx(1)
    assert scores["median_sample_explained_variance"].value == 1
    assert scores["explained_variance_no_outliers"].value == 1


@pytest.mark.parametrize("offset", [0.0, 5.0, 1e4])
def test_predicting_the_mean_explains_nothing(x, offset):
    x = x + offset
    scores = scores_of(x, x.mean(0).expand_as(x))
    assert scores["explained_variance"].value == pytest.approx(0, abs=1e-6)
    assert scores["explained_variance_no_outliers"].value == pytest.approx(0, abs=1e-6)
    assert scores["median_sample_explained_variance"].value == pytest.approx(0, abs=1e-6)


def test_explained_variance_is_sklearns(x, reconstruction):
    expected = r2_score(x.numpy(), reconstruction.numpy(), multioutput="variance_weighted")
    assert scores_of(x, reconstruction)["explained_variance"].value == pytest.approx(expected, abs=1e-12)


def test_batches_change_nothing(x, reconstruction):
    first, *others = (scores_of(x, reconstruction, batch_size=size) for size in (1, 7, 100))
    for other in others:
        for name, score in first.items():
            assert (other[name].value, other[name].low) == pytest.approx((score.value, score.low), abs=1e-9), name


def test_a_constant_offset_changes_nothing(x, reconstruction):
    plain, moved = scores_of(x, reconstruction), scores_of(x + 1e4, reconstruction + 1e4)
    for name in ("explained_variance", "fvu", "median_sample_explained_variance"):
        assert moved[name].value == pytest.approx(plain[name].value, abs=1e-9), name


def test_a_missed_offset_is_counted(x, reconstruction):
    # dictionary_learning's 1 - var(e) / var(x) does not see a constant error
    assert scores_of(x, reconstruction + 1)["fvu"].value == pytest.approx(
        ((x - reconstruction - 1) ** 2).sum().item() / ((x - x.mean(0)) ** 2).sum().item()
    )


def test_constant_data_has_an_answer_only_if_it_is_met(x):
    constant = torch.full((50, 3), 7.3)
    assert scores_of(constant, constant.clone())["explained_variance"].value == 1
    missed = scores_of(constant, constant + 1)["explained_variance"]
    assert missed.value != missed.value
    assert missed.low is None


def test_shrinkage_and_bias_by_hand():
    # reconstructions half and twice as long; the zero sample is skipped; bias = (.25 + 4) / (.5 + 2)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    scores = scores_of(x, torch.tensor([[0.5, 0.0], [0.0, 2.0], [9.0, 9.0]]))
    assert scores["shrinkage"].value == pytest.approx(1.25)
    assert scores["relative_reconstruction_bias"].value == pytest.approx(4.25 / 2.5)
    assert scores["shrinkage"].n == 2


def test_outlier_excluded_value_by_hand():
    # 99 samples of norm 1 or 2 (bins far below the limit), one of norm 100
    x = torch.ones(100, 1, dtype=torch.float64)
    x[::2] = 2.0
    x[0] = 100.0
    reconstruction = x + 0.1
    inside = x[1:]
    expected = 1 - (99 * 0.01) / ((inside - inside.mean()) ** 2).sum().item()
    score = scores_of(x, reconstruction)["explained_variance_no_outliers"]
    assert score.value == pytest.approx(expected)
    assert score.n == 99


def test_documents_are_resampled_whole(x):
    # 20 documents, each either perfect or predicted by the mean: more spread than 1000 independent samples
    documents = torch.arange(1000) // 50
    perfect = (documents % 2 == 0)[:, None]
    reconstruction = torch.where(perfect, x, x.mean(0))
    scattered = torch.where((torch.arange(1000) % 2 == 0)[:, None], x, x.mean(0))
    whole = scores_of(x, reconstruction, document_ids=documents)["explained_variance"]
    free = scores_of(x, scattered, document_ids=torch.arange(1000) % 250)["explained_variance"]
    assert whole.high - whole.low > 2 * (free.high - free.low)


def test_interval_covers_the_truth():
    # x is isotropic and the error is 0.3 of its variance, so the true explained variance is 0.7
    g = torch.Generator().manual_seed(3)
    hits = 0
    for _ in range(30):
        x = torch.randn(1024, 4, generator=g)
        score = scores_of(x, x + 0.3**0.5 * torch.randn(1024, 4, generator=g))["explained_variance"]
        hits += score.low <= 0.7 <= score.high
    assert hits >= 25


def test_median_with_interval():
    score = median_with_interval(torch.arange(101.0), id="m/v1")
    # ranks 50 -+ 1.96 * sqrt(101) / 2 = 40.15 and 59.85, taken outwards
    assert (score.low, score.value, score.high) == (40, 50, 60)
    assert median_with_interval(torch.tensor([1.0, 2.0]), id="m/v1").value == 1.5


def test_nothing_seen_is_an_error():
    with pytest.raises(ValueError, match="no sample seen"):
        Reconstruction().compute(ANY_SAE)
