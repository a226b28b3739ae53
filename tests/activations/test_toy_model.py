import pytest
import torch

from sae_toolkit.activations import KnownFeatures, ToyModelSource, toy_model
from sae_toolkit.ground_truth import ToyData, ToyModels
from sae_toolkit.metrics import default_metrics, geometry, linear_probe, score_with_controls
from sae_toolkit.saes import TopKSAE

# three features in two dimensions: two orthogonal ones of lengths 1 and 2, one too short to count as represented
W = torch.tensor([[[1.0, 0.0, 0.3], [0.0, 2.0, 0.4]]])
P = torch.tensor([[0.9, 0.8, 0.5]])


def toy_source(weights=W, probabilities=P, kind="relu_output", **data):
    models = ToyModels.of_weights(kind, weights, torch.zeros(weights.shape[0], weights.shape[2]))
    return ToyModelSource(models, ToyData(probabilities=probabilities, **data))


def small_source(folder):
    """For the contract tests."""
    del folder
    angles = torch.arange(5.0) * 2 * torch.pi / 5
    return toy_source(torch.stack([angles.cos(), angles.sin()])[None], torch.full((1, 5), 0.95))


def one_batch(source, n=500, split="eval"):
    return next(source.stream(n, seed=0, split=split))


def test_only_represented_features_have_a_direction():
    source = toy_source()
    assert source.feature_ids.tolist() == [0, 1]
    assert source.directions.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert source.mean_active == pytest.approx(1.7)


def test_represented_means_what_it_means_in_the_geometry():
    assert toy_model.REPRESENTED == geometry.REPRESENTED


def test_coefficients_are_the_strength_along_the_unit_direction():
    source = toy_source(W[..., :2], P[:, :2])  # without the short one nothing is left over
    batch = one_batch(source)
    assert torch.allclose(batch.coefficients.to_dense() @ source.directions, batch.activations, atol=1e-6)
    assert 1.9 < float(batch.coefficients.to_dense()[:, 1].max()) <= 2.0  # x in [0, 1] times ||W_1|| = 2


def test_what_the_model_does_not_represent_is_left_as_noise():
    batch = one_batch(toy_source())
    left = batch.activations - batch.coefficients.to_dense()
    # x_2 (.3, .4) in about half of the samples
    assert torch.allclose(left[:, 0] * 4, left[:, 1] * 3, atol=1e-5)
    assert 0.4 < float((left[:, 0].abs() > 1e-6).float().mean()) < 0.6


def test_the_noise_is_described():
    # p_i ||W_i||^2: .9, 3.2 and .5 / 4
    assert toy_source().describe()["noise_share"] == pytest.approx(0.125 / 4.225, rel=1e-5)
    assert toy_source(W[..., :2], P[:, :2]).describe()["noise_share"] == 0


def test_probabilities_are_those_of_the_data():
    counts = one_batch(toy_source(), 20_000).coefficients.column_counts() / 20_000
    assert torch.allclose(counts, P[0, :2], atol=0.012)  # 4 standard deviations


def test_the_state_of_another_model_is_refused():
    state = toy_source().stream(8, seed=0, split="train").state_dict()
    with pytest.raises(ValueError, match="Open the stream that was saved"):
        toy_source(2 * W).stream(8, seed=0, split="train").load_state_dict(state)


def test_the_state_of_other_data_is_refused():
    state = toy_source(exclusive=()).stream(8, seed=0, split="train").state_dict()
    with pytest.raises(ValueError, match="Open the stream that was saved"):
        toy_source(probabilities=P / 2, exclusive=((0, 1),)).stream(8, seed=0, split="train").load_state_dict(state)


def test_global_generator_is_not_asked():
    expected = one_batch(toy_source()).activations
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(one_batch(toy_source()).activations, expected)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"split": "test"}])
def test_impossible_streams_raise(wrong):
    with pytest.raises(ValueError, match=r"ToyModelSource\.stream"):
        toy_source().stream(**({"batch_size": 4, "seed": 0, "split": "train"} | wrong))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights": W / 10}, r"largest \|\|W_i\|\| is 0.20"),
        ({"weights": W.repeat(2, 1, 1)}, "2 models and data of 1 cells"),
        ({"probabilities": P[:, :2]}, "a model of 3 features and data of 2"),
        ({"kind": "relu_hidden"}, "kind='relu_hidden' given"),
        ({"signed": True}, "signed data given"),
    ],
)
def test_what_is_no_superposition_of_known_features_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        toy_source(**changes)


def test_the_truth_is_asked_for_as_in_a_drawn_world():
    source = toy_source()
    assert isinstance(source, KnownFeatures)
    assert {"FeatureRecovery", "LatentDetection", "Leakage"} <= {type(m).__name__ for m in default_metrics(source)}


def test_a_model_that_keeps_its_features_apart_is_read_by_a_linear_probe():
    probe = linear_probe(toy_source(W[..., :2], P[:, :2]), n_train=2000, n_eval=2000)
    # of two orthogonal features each is one coordinate, above 0 exactly where it fires; the regression is nearly so
    assert probe["probe_auroc"].value > 0.98


def test_it_gets_floors_and_ceilings():
    source = toy_source(W[..., :2], P[:, :2])
    sae = TopKSAE(TopKSAE.Config(d_in=2, d_sae=4, k=2)).eval()
    ladder = score_with_controls({"a": sae}, source, n_samples=500, leave_out=("floor/ica", "floor/kmeans"))
    assert ladder.saes["a"]["mean_matched_cosine"].ceiling == pytest.approx(1.0)
    assert "ceiling/linear_probe" in ladder.controls
