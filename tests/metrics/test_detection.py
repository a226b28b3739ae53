import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

import sae_toolkit.metrics.co_firing as co_firing_file
import sae_toolkit.metrics.detection as detection_file
from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.co_firing import Column, shared_samples
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.detection import LatentDetection, Levels, pearson, tuned_f1
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK
from sae_toolkit.sparse_rows import SparseRows

N = 400


@pytest.fixture
def pair():
    """A feature and a latent that detects it with misses, false alarms and many ties."""
    g = torch.Generator().manual_seed(2)
    truth = torch.rand(N, generator=g) * (torch.rand(N, generator=g) < 0.2)
    latent = (truth + 0.3 * torch.randn(N, generator=g)).relu().mul(8).round() / 8
    return latent.double().numpy(), truth.double().numpy()


def column(dense):
    samples = np.flatnonzero(dense)
    return Column(samples, dense[samples])


@pytest.mark.parametrize(
    ("one", "other"), [([0, 3, 4, 9], [3, 9, 12]), ([3, 12], [0, 3]), ([5], [5]), ([1, 2], []), ([], [2]), ([], [])]
)
def test_shared_samples_are_those_in_both(one, other):
    columns = [Column(np.array(samples, dtype=np.int32), np.ones(len(samples))) for samples in (one, other)]
    assert shared_samples(*columns).tolist() == [sample in other for sample in one]


def test_auroc_is_sklearns_with_ties(pair):
    latent, truth = pair
    expected = roc_auc_score(truth > 0, latent)
    assert Levels(column(latent), column(truth), N).auroc() == pytest.approx(expected, abs=1e-12)


def test_auroc_with_negative_scores(pair):
    latent, truth = pair
    latent = np.where(np.arange(N) % 3 == 0, -latent, latent)
    expected = roc_auc_score(truth > 0, latent)
    assert Levels(column(latent), column(truth), N).auroc() == pytest.approx(expected, abs=1e-12)


def test_auroc_of_a_latent_that_says_nothing_is_one_half(pair):
    assert Levels(column(np.zeros(N)), column(pair[1]), N).auroc() == 0.5


def test_f1_at_every_threshold_is_sklearns(pair):
    latent, truth = pair
    levels = Levels(column(latent), column(truth), N)
    for score, f1 in zip(levels.scores, levels.f1_above(), strict=True):
        assert f1 == pytest.approx(f1_score(truth > 0, latent >= score), abs=1e-12)


def test_threshold_is_tuned_on_one_half_and_scored_on_the_other(pair):
    latent, truth = pair
    half = N // 2
    candidates = np.unique(latent[:half])
    best = max(candidates[1:], key=lambda t: f1_score(truth[:half] > 0, latent[:half] >= t))
    expected = f1_score(truth[half:] > 0, latent[half:] >= best)  # latents are eighths: halfway changes nothing
    assert tuned_f1(column(latent), column(truth), N) == pytest.approx(expected, abs=1e-12)


def test_pearson_is_numpys(pair):
    latent, truth = pair
    assert pearson(column(latent), column(truth), N) == pytest.approx(np.corrcoef(latent, truth)[0, 1], abs=1e-12)
    assert pearson(column(np.zeros(N)), column(truth), N) == 0


def fixed_pairs():
    """A decoder whose row i is direction i, so that the matching is the identity on the first 10 of 12 features."""
    directions = torch.eye(12)
    return directions, FixedDictionary(directions[:10], coder=LinearTopK(1))


def test_scores_are_means_over_features_and_unmatched_ones_count(samples):
    directions, sae = fixed_pairs()
    scores = samples.feed(LatentDetection(directions), 32).compute(sae)
    truth, latents = samples.coefficients.numpy() > 0, samples.latents.numpy()
    f1 = [f1_score(truth[:, i], latents[:, i] > 0) if i < 9 else 0.0 for i in range(12)]
    auroc = [roc_auc_score(truth[:, i], latents[:, i]) if i < 9 else 0.5 for i in range(12)]
    assert scores["activation_f1"].value == pytest.approx(np.mean(f1))
    assert scores["activation_auroc"].value == pytest.approx(np.mean(auroc))
    assert scores["activation_f1"].n == 12


def test_perfect_latents(samples):
    directions = torch.eye(12)
    metric = LatentDetection(directions)
    perfect = samples._replace(latents=2 * samples.coefficients)
    scores = perfect.feed(metric, 100).compute(FixedDictionary(directions, coder=LinearTopK(1)))
    # tuned thresholds sit halfway below the smallest firing of the first half, so the second may lose a few
    assert scores["activation_f1"].value == scores["activation_auroc"].value == 1
    assert scores["activation_pearson"].value == pytest.approx(1)
    assert scores["activation_f1_tuned"].value > 0.95


def test_only_the_first_samples_are_ranked_but_all_are_counted(samples, monkeypatch):
    monkeypatch.setattr(detection_file, "RANKED_SAMPLES", 60)
    directions, sae = fixed_pairs()
    cut = samples.feed(LatentDetection(directions), 17).compute(sae)
    monkeypatch.undo()
    head = type(samples)(*(None if part is None else part[:60] for part in samples))
    first = head.feed(LatentDetection(directions), 60).compute(sae)
    whole = samples.feed(LatentDetection(directions), 100).compute(sae)
    assert cut["activation_auroc"] == first["activation_auroc"]
    assert cut["activation_f1_tuned"] == first["activation_f1_tuned"]
    assert cut["activation_f1"] == whole["activation_f1"]


def test_pairs_are_counted_in_chunks(samples, monkeypatch):
    directions = torch.eye(12)
    whole = samples.feed(LatentDetection(directions), 100)
    monkeypatch.setattr(co_firing_file, "PAIRS_AT_ONCE", 7)
    cut = samples.feed(LatentDetection(directions), 100)
    assert torch.equal(whole.counts.both, cut.counts.both)
    expected = (samples.coefficients > 0).double().T @ (samples.latents > 0).double()
    assert torch.equal(whole.counts.both.double(), expected)


def test_a_source_without_truth_is_refused():
    metric = LatentDetection(torch.eye(2))
    with pytest.raises(ValueError, match="coefficients=None"):
        metric.update(ActivationBatch(torch.ones(1, 2)), SAEOutput(torch.ones(1, 2), torch.ones(1, 2)))


def test_shuffled_matching_scores_what_firing_rates_alone_give():
    g = torch.Generator().manual_seed(3)
    n, rate = 8, 0.2
    truth = (torch.rand(20_000, n, generator=g) < rate).float()
    metric = LatentDetection(torch.eye(n))
    coefficients = SparseRows.from_dense(truth)
    metric.update(ActivationBatch(truth, coefficients=coefficients), SAEOutput(truth, truth))
    scores = metric.compute(FixedDictionary(torch.eye(n), coder=LinearTopK(n)))
    assert scores["activation_f1"].value == 1.0
    # two independent events of rate p: F1 = 2 p^2 / (p + p) = p; four standard errors of the mean over 8 pairs
    assert scores["activation_f1_shuffled"].value == pytest.approx(rate, abs=0.01)
