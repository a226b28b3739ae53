"""What every metric of the package owes, also one that is added later."""

import importlib
import inspect
import pkgutil
from math import isfinite, isnan

import numpy as np
import pytest
import torch
from fake_splicing import FakeSplicingSource

import sae_toolkit.metrics as package
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.labels import position_buckets, token_classes
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.saes.coders import LinearTopK

SHIPPED = {
    "Absorption",
    "CoActivation",
    "CrossTalk",
    "Crowding",
    "EncoderInterference",
    "FiringAbsorption",
    "FiringRecovery",
    "FiringSplitting",
    "FirstLetter",
    "Hedging",
    "FeatureRecovery",
    "LatentDetection",
    "Leakage",
    "SAELensRecovery",
    "Interference",
    "Merging",
    "ModelLoss",
    "Reconstruction",
    "Sparsity",
    "ByGroup",
    "SiteReconstruction",
    "ContextSimilarity",
    "LabelSelectivity",
    "SparseProbing",
    "TokenConcentration",
    "VariableRecovery",
    "LogitAttribution",
    "ProbeDirection",
}


def all_metrics():
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        for name, value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).items():
            if inspect.isclass(value) and issubclass(value, Metric) and not inspect.isabstract(value):
                found[name] = value
    return found


METRICS = all_metrics()


def directions():
    rows = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
    return rows / rows.norm(dim=1, keepdim=True)


def build(metric):
    known = {
        "directions": directions(),
        "pairs": torch.tensor([[0, 1], [2, 3]]),
        "partners": torch.arange(12) ^ 1,
        "source": FakeSplicingSource(("early",)),
        "n_tokens": 100,
        "names": [f"{'colour' if i < 5 else 'size'}: {i}" for i in range(12)],
        "unembedding": directions().T,
        "promised": torch.arange(12) % 6 - 1,
        "labellings": [token_classes((" a", ".", "b")), position_buckets()],
        "token_texts": [" a", " b", "c"],
        "sites": {"early": 4, "late": 2},
    }
    needs = inspect.signature(metric).parameters
    assert set(needs) <= set(known), f"{metric.__name__} needs {set(needs)}: teach this test how to give it"
    return metric(**{name: known[name] for name in needs})


@pytest.fixture
def samples(samples):
    """With labels, for the metrics that need them."""
    numbers = torch.arange(len(samples.x))
    return samples._replace(token_ids=numbers * 7 % 3, positions=numbers % 10, document_ids=numbers // 10)


@pytest.fixture
def sae():
    return FixedDictionary(directions()[:10], coder=LinearTopK(2))


def test_the_walk_found_what_ships():
    assert set(METRICS) >= SHIPPED


def test_score_names_and_ids_are_unique_over_all_metrics(samples, sae):
    names, ids = [], []
    for metric in METRICS.values():
        scores = samples.feed(build(metric), 100).compute(sae)
        names += scores
        ids += [score.id for score in scores.values()]
    assert len(set(names)) == len(names)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_scores_are_finite_or_nan_and_intervals_hold_together(samples, sae, name):
    scores = samples.feed(build(METRICS[name]), 100).compute(sae)
    assert scores
    for score in scores.values():
        assert isfinite(score.value) or isnan(score.value)
        assert score.n >= 0
        assert (score.low is None) == (score.high is None)
        if score.low is not None:
            assert isfinite(score.low)
            assert score.low - 1e-9 <= score.value <= score.high + 1e-9, score


@pytest.mark.parametrize("name", sorted(METRICS))
def test_batches_change_nothing(samples, sae, name):
    first, *others = (samples.feed(build(METRICS[name]), size).compute(sae) for size in (1, 7, 100))
    for other in others:
        assert other.keys() == first.keys()
        for key, score in first.items():
            expected = (score.value, score.low, score.high, score.n)
            found = (other[key].value, other[key].low, other[key].high, other[key].n)
            assert found == pytest.approx(expected, abs=1e-9, nan_ok=True), key


@pytest.mark.parametrize("name", sorted(METRICS))
def test_computing_twice_gives_the_same(samples, sae, name):
    metric = samples.feed(build(METRICS[name]), 50)
    assert repr(metric.compute(sae)) == repr(metric.compute(sae))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_latents_may_be_silent(samples, sae, name):
    silent = samples._replace(latents=torch.zeros_like(samples.latents))
    for score in silent.feed(build(METRICS[name]), 50).compute(sae).values():
        assert isfinite(score.value) or isnan(score.value)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_the_mean_of_the_units_is_the_score(samples, sae, name):
    metric = samples.feed(build(METRICS[name]), 7)
    scores = metric.compute(sae)
    for score, units in metric.units(sae).items():
        assert units.id == scores[score].id
        known = units.values[~np.isnan(units.values)]
        mean = known.mean() if len(known) else float("nan")
        assert mean == pytest.approx(scores[score].value, abs=1e-9, nan_ok=True)


def test_some_metrics_have_units(samples, sae):
    found = {score for metric in METRICS.values() for score in samples.feed(build(metric), 50).units(sae)}
    assert found >= {"recall_at_0.9", "activation_f1", "explained_variance", "l0", "ce_recovered_mean"}
