from functools import partial

import pytest
import torch
from fake_splicing import FakeSplicingSource
from toy import ToySource

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, ActivationStream
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth.presets import dataset_a
from sae_toolkit.metrics.controls import FixedDictionary, random_directions
from sae_toolkit.metrics.evaluate import default_metrics, evaluate, evaluate_and_count, with_reference
from sae_toolkit.metrics.reconstruction import Reconstruction
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.sparsity import Sparsity
from sae_toolkit.saes.batch_topk import BatchTopKSAE
from sae_toolkit.saes.coders import LinearTopK


class RowStream(ActivationStream):
    def __init__(self, rows, batch_size):
        self.parts = iter(rows.split(batch_size))

    def __next__(self):
        return ActivationBatch(activations=next(self.parts))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        del state


class RowSource(ActivationSource):
    """A finite source without known features."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []

    @property
    def d_in(self):
        return self.rows.shape[1]

    def stream(self, batch_size, *, seed, split):
        self.asked.append((seed, split))
        return RowStream(self.rows, batch_size)

    def describe(self):
        return {}


@pytest.fixture
def rows():
    return torch.randn(100, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sae(rows):
    sae = BatchTopKSAE(BatchTopKSAE.Config(d_in=8, d_sae=16, k=2), seed=0)
    sae.calibrate_([rows])
    return sae


def both():
    return [Reconstruction(), Sparsity()]


def values(scores):
    return {name: score.value for name, score in scores.items()}


def test_one_dictionary_or_several(rows, sae):
    source = RowSource(rows)
    alone = evaluate(sae, source, n_samples=100, metrics=both, seed=5)
    assert source.asked == [(5, "eval")]
    random = FixedDictionary(random_directions(16, 8, seed=0), coder=LinearTopK(2))
    together = evaluate({"a": sae, "b": random}, source, n_samples=100, metrics=both)
    assert list(alone) == ["sae"]
    assert together["a"] == alone["sae"]
    assert together["b"] != together["a"]


def test_batches_of_the_stream_change_nothing(rows, sae):
    first, *others = (evaluate(sae, RowSource(rows), n_samples=90, metrics=both, batch_size=b) for b in (1, 7, 100))
    for other in others:  # up to the rounding of the SAE's own float32 products
        assert values(other["sae"]) == pytest.approx(values(first["sae"]), abs=1e-6, nan_ok=True)
    assert first["sae"]["l0"].n == 90


def test_ends_with_the_stream(rows, sae):
    assert evaluate(sae, RowSource(rows), n_samples=10**9, metrics=both)["sae"]["l0"].n == 100


def test_nothing_seen_is_an_error(rows, sae):
    with pytest.raises(ValueError, match="no sample"):
        evaluate(sae, RowSource(torch.zeros(0, 8)), n_samples=5, metrics=both)
    with pytest.raises(ValueError, match="n_samples=0"):
        evaluate(sae, RowSource(rows), n_samples=0)


def test_leaves_everything_as_it_was(rows, sae):
    sae.train()
    sae.normaliser.eval()
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(sae, RowSource(rows), n_samples=100)
    assert sae.training
    assert not sae.normaliser.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in sae.state_dict().items())
    assert all(parameter.grad is None for parameter in sae.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_training_mode_returns_after_an_error(rows):
    uncalibrated = BatchTopKSAE(BatchTopKSAE.Config(d_in=8, d_sae=16, k=2), seed=0)
    with pytest.raises(ValueError, match="threshold"):
        evaluate(uncalibrated, RowSource(rows), n_samples=100)
    assert uncalibrated.training


def test_scores_the_inference_form(rows, sae):
    # training keeps batch * k latents of whatever batch comes; inference is one threshold
    sae.train()
    found = evaluate(sae, RowSource(rows), n_samples=100, metrics=both, batch_size=13)
    assert found["sae"]["l0"].value == pytest.approx(2.0, abs=0.02)


def test_truth_metrics_come_with_a_source_of_known_features(rows):
    names = {type(metric).__name__ for metric in default_metrics(RowSource(rows))}
    assert names == {"Reconstruction", "Sparsity", "Interference"}
    more = {type(metric).__name__ for metric in default_metrics(SuperpositionSource(dataset_a(0)))}
    assert more == names | {"FeatureRecovery", "Hedging", "LatentDetection", "Leakage", "SAELensRecovery"}


def test_losses_come_with_a_language_model():
    source = FakeSplicingSource(("early",))
    names = {type(metric).__name__ for metric in default_metrics(source)}
    assert names == {"Reconstruction", "Sparsity", "Interference", "ModelLoss"}
    random = FixedDictionary(random_directions(16, 6, seed=0), coder=LinearTopK(2))
    metrics = partial(default_metrics, source, loss_tokens=100)
    scores = evaluate(random, source, n_samples=50, metrics=metrics)["sae"]
    assert (scores["l0"].n, scores["ce_clean"].n) == (50, 104)  # whole rows of 8 tokens


def test_samples_left_out_on_the_way_are_counted():
    sae = FixedDictionary(random_directions(16, 8, seed=0), coder=LinearTopK(2))
    found = evaluate_and_count(sae, ToySource(), n_samples=90, metrics=both, batch_size=40)
    assert found.excluded == {"toy reason": 6}  # two with each of three batches
    assert found.scores == evaluate(sae, ToySource(), n_samples=90, metrics=both, batch_size=40)


def test_the_same_score_from_two_metrics_is_an_error(rows, sae):
    with pytest.raises(ValueError, match="another metric gives too"):
        evaluate(sae, RowSource(rows), n_samples=10, metrics=lambda: [Sparsity(), Sparsity()])


def test_references_are_filled_in_by_name_and_definition():
    score = Score(value=0.5, n=1, id="x/v1")
    floor = {"x": Score(value=0.2, n=1, id="x/v1")}
    ceiling = {"x": Score(value=0.8, n=1, id="x/v1")}
    filled = with_reference({"x": score, "y": score}, floor, ceiling)
    assert (filled["x"].floor, filled["x"].ceiling) == (0.2, 0.8)
    assert filled["x"].normalised() == pytest.approx(0.5)
    assert (filled["y"].floor, filled["y"].ceiling) == (None, None)
    assert with_reference({"x": score}, floor)["x"].ceiling is None
    with pytest.raises(ValueError, match="different definitions"):
        with_reference({"x": Score(value=0.5, n=1, id="x/v2")}, floor)
