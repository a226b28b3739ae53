"""Information of firing about labels: by hand, and against scikit-learn and SciPy."""

from math import log

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score

from sae_toolkit.metrics.label_information import (
    binary_entropy,
    class_information,
    count_labels,
    entropy,
    entropy_given_firing,
    label_information,
    lift,
    most_lifted_class,
    purest_class,
    purity,
)


def one_hot(labels, n_classes):
    return sparse.csr_matrix(np.eye(n_classes, dtype=np.int32)[labels])


def counts_of(fires, labels, n_classes=4):
    return count_labels(sparse.csr_matrix(fires.astype(np.int32)), one_hot(labels, n_classes))


@pytest.fixture
def random_case():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=300)
    fires = rng.random((6, 300)) < np.array([0.1, 0.3, 0.6, 0.2, 1.0, 0.0])[:, None]
    fires[3] = labels == 2
    fires[1] |= labels == 0
    return fires, labels


def test_by_hand():
    # labels of 4 samples: 0 0 1 2; latent 0 fires on the first three, latent 1 on the last two, latent 2 on the first
    fires = np.array([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]])
    counts = counts_of(fires, np.array([0, 0, 1, 2]), 3)
    assert counts.both.toarray().tolist() == [[2, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert purest_class(counts).tolist() == [0, 1, 0]
    assert purity(counts, np.array([0, 1, 0])) == pytest.approx([2 / 3, 1 / 2, 1])
    # lifts of latent 0: class 0 (2/3 - 1/2) / (1/2) = 1/3, class 1 (1/3 - 1/4) / (3/4) = 1/9
    assert most_lifted_class(counts).tolist() == [0, 1, 0]
    assert lift(counts, np.array([0, 1, 0])) == pytest.approx([1 / 3, 1 / 3, 1])
    assert entropy(counts.labels) == pytest.approx(1.5 * log(2))
    assert entropy_given_firing(counts) == pytest.approx([log(3) - 2 / 3 * log(2), log(2), 0])
    # latent 1 against class 0: it fires exactly where class 0 does not hold, so both know each other fully: ln 2
    assert class_information(counts, np.array([0, 0, 0]))[1] == pytest.approx(log(2))
    assert binary_entropy(np.array([2.0]), 4) == pytest.approx([log(2)])


def test_information_equals_that_of_scikit_learn(random_case):
    fires, labels = random_case
    counts = counts_of(fires, labels)
    expected = [mutual_info_score(row, labels) for row in fires]
    assert label_information(counts) == pytest.approx(expected, abs=1e-6)
    choice = np.array([0, 1, 2, 2, 3, 0])
    expected = [mutual_info_score(row, labels == c) for row, c in zip(fires, choice, strict=True)]
    assert class_information(counts, choice) == pytest.approx(expected, abs=1e-6)


def test_entropies_equal_those_of_scipy(random_case):
    fires, labels = random_case
    counts = counts_of(fires, labels)
    assert entropy(counts.labels) == pytest.approx(scipy_entropy(np.bincount(labels)))
    for i, found in enumerate(entropy_given_firing(counts)[:5]):
        assert found == pytest.approx(scipy_entropy(np.bincount(labels[fires[i]], minlength=4)), abs=1e-12)
    assert np.isnan(entropy_given_firing(counts)[5])
    expected = [scipy_entropy([row.mean(), 1 - row.mean()]) for row in fires]
    assert binary_entropy(counts.fires, 300) == pytest.approx(expected, abs=1e-12)


def test_choices_against_a_loop(random_case):
    fires, labels = random_case
    counts = counts_of(fires, labels)
    for i, row in enumerate(fires[:5]):
        rates = [(labels[row] == c).mean() for c in range(4)]
        bases = [(labels == c).mean() for c in range(4)]
        lifts = [(rate - base) / (1 - base) for rate, base in zip(rates, bases, strict=True)]
        assert purest_class(counts)[i] == np.argmax(rates)
        assert most_lifted_class(counts)[i] == np.argmax(lifts)
        assert lift(counts, purest_class(counts))[i] == pytest.approx(lifts[int(np.argmax(rates))])


def test_a_class_that_always_holds_lifts_nothing():
    counts = counts_of(np.array([[1, 0, 1]]), np.array([1, 1, 1]), 2)
    assert lift(counts, np.array([1])).tolist() == [0.0]
    assert purity(counts, np.array([1])).tolist() == [1.0]
