"""Floors and ceilings on dataset A, against reference numbers measured apart from this code."""

import pytest
import torch

from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth.presets import dataset_a
from sae_toolkit.metrics.components import ica_directions, kmeans_directions, nmf_directions, pca_directions
from sae_toolkit.metrics.controls import (
    CEILING,
    FLOOR,
    FLOORS,
    FixedDictionary,
    ceilings,
    data_rows,
    floor_directions,
    random_directions,
    shuffled_rows,
    standard_controls,
    unlearned_dictionaries,
    untrained,
)
from sae_toolkit.metrics.detection import LatentDetection
from sae_toolkit.metrics.evaluate import evaluate
from sae_toolkit.metrics.matching import match_latents
from sae_toolkit.metrics.reconstruction import Reconstruction
from sae_toolkit.saes.batch_topk import BatchTopKSAE
from sae_toolkit.saes.coders import MatchingPursuit, RefittedTopK


@pytest.fixture(scope="module")
def source():
    return SuperpositionSource(dataset_a(0))


@pytest.fixture(scope="module")
def sample(source):
    return next(source.stream(20_000, seed=1, split="train")).activations


def mcc(source, directions):
    return match_latents(source.directions, directions).cosine.mean().item()


def test_ceilings_reach_the_reference(source):
    found = evaluate(
        ceilings(source.directions, k=6),
        source,
        n_samples=3000,
        metrics=lambda: [LatentDetection(source.directions), Reconstruction()],
    )
    expected = {  # activation F1 (z > 0), explained variance
        "ceiling/true_topk": (0.743, 0.703),
        "ceiling/true_omp": (0.912, 0.922),
        CEILING: (0.997, 0.999),
        "ceiling/true_lasso": (0.977, 0.990),
    }
    for name, (f1, variance) in expected.items():
        assert found[name]["activation_f1"].value == pytest.approx(f1, abs=0.02), name
        assert found[name]["explained_variance"].value == pytest.approx(variance, abs=0.01), name


def test_floors_reach_the_reference(source, sample):
    assert mcc(source, random_directions(256, 64, seed=0)) == pytest.approx(0.328, abs=0.01)
    assert mcc(source, data_rows(sample, 256, seed=0)) == pytest.approx(0.544, abs=0.03)
    assert mcc(source, shuffled_rows(sample, 256, seed=0)) == pytest.approx(0.328, abs=0.02)
    assert mcc(source, pca_directions(sample, 128)[:64]) == pytest.approx(0.089, abs=0.01)
    assert mcc(source, ica_directions(sample, 128, seed=0)[:64]) == pytest.approx(0.169, abs=0.02)


def test_kmeans_is_a_strong_control(source, sample):
    assert mcc(source, kmeans_directions(sample, 256, seed=0)) == pytest.approx(0.878, abs=0.03)


def test_kmeans_survives_samples_at_the_mean_and_duplicates():
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    centres = kmeans_directions(points, 3, seed=0)
    assert centres.isfinite().all()
    assert centres.norm(dim=1).tolist() == pytest.approx([1.0] * 3)


def test_too_small_a_sample_is_refused(sample):
    for build in (data_rows, kmeans_directions):
        with pytest.raises(ValueError, match="256"):
            build(sample[:100], 256, seed=0)


def test_fixed_dictionary_takes_any_leading_shape(source, sample):
    sae = FixedDictionary(3 * source.directions, coder=MatchingPursuit(12), offset=torch.ones(64))
    output = sae.forward(sample[:12].reshape(3, 4, 64) + 1)
    assert output.dense_latents().shape == (3, 4, 256)
    assert torch.allclose(output.reconstruction, sample[:12].reshape(3, 4, 64) + 1, atol=1e-3)
    assert sae.decoder_directions().norm(dim=1).tolist() == pytest.approx([1.0] * 256, abs=1e-6)


def test_standard_controls_name_floors_and_ceilings(source, sample):
    sae = BatchTopKSAE(BatchTopKSAE.Config(d_in=64, d_sae=96, k=4), seed=0)
    sae.normaliser.fit_(sample)
    floors = floor_directions(sample[:2000], 96, seed=0, leave_out=["floor/ica"])
    controls = standard_controls(sae, sample[:2000], k=4, seed=0, floors=floors, directions=source.directions)
    names = {"random", "data_rows", "shuffled_rows", "neurons", "pca", "kmeans", "untrained"}
    names |= {"random by top-k", "neurons by top-k", "pca by top-k", "kmeans by top-k"}
    coders = {"true_topk", "true_omp", "true_omp_2k", "true_lasso"}
    assert set(controls) == {f"floor/{n}" for n in names} | {f"ceiling/{n}" for n in coders}
    assert FLOOR in controls
    for name, control in controls.items():
        assert control.d_sae == (256 if name.startswith("ceiling") else 96), name
        assert control.forward(sample[:5]).reconstruction.shape == (5, 64)


def test_an_unknown_floor_is_refused(sample):
    with pytest.raises(ValueError, match="floor/ica"):
        floor_directions(sample, 4, seed=0, leave_out=["ica"])


def test_untrained_keeps_data_statistics_and_nothing_else(sample):
    sae = BatchTopKSAE(BatchTopKSAE.Config(d_in=64, d_sae=96, k=4), seed=0)
    sae.normaliser.fit_(sample)
    with torch.no_grad():
        sae.b_dec.add_(0.5)
    control = untrained(sae, sample[:1000], seed=9)
    assert torch.equal(control.b_dec, sae.b_dec)
    assert torch.equal(control.normaliser.shift, sae.normaliser.shift)
    assert control.normaliser is not sae.normaliser
    assert not torch.allclose(control.W_dec, sae.W_dec)
    assert not control.training


def test_controls_depend_on_the_seed_alone(sample):
    for build in (data_rows, shuffled_rows, kmeans_directions):
        assert torch.equal(build(sample[:500], 20, seed=1), build(sample[:500], 20, seed=1))
        assert not torch.equal(build(sample[:500], 20, seed=1), build(sample[:500], 20, seed=2))


def test_neurons_are_the_axes_with_both_signs(sample):
    rows = floor_directions(sample[:200, :4], 6, seed=0, leave_out=[n for n in FLOORS if n != "floor/neurons"])
    assert rows["floor/neurons"].tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [-1, 0, 0, 0],
        [0, -1, 0, 0],
        [0, 0, -1, 0],
    ]


def test_nonnegative_factors_find_the_parts_of_nonnegative_data():
    g = torch.Generator().manual_seed(0)
    parts = torch.eye(8)[:4] + torch.eye(8)[4:]  # four parts, each on two neurons of its own
    weights = torch.rand(3000, 4, generator=g) * (torch.rand(3000, 4, generator=g) < 0.3)
    found = nmf_directions(weights @ parts, 4, seed=0)
    assert (found >= 0).all()
    assert match_latents(parts / 2**0.5, found).cosine.min() > 0.99


def test_nonnegative_factors_exist_where_no_activation_is_negative(sample):
    slow = ["floor/ica", "floor/kmeans"]
    assert "floor/nmf" not in floor_directions(sample[:500], 8, seed=0, leave_out=slow)
    assert "floor/nmf" in floor_directions(sample[:500].relu(), 8, seed=0, leave_out=slow)
    with pytest.raises(ValueError, match="none below 0"):
        nmf_directions(sample[:500], 4, seed=0)


def test_neurons_tell_a_sample_by_what_deviates_most():
    sample = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])  # mean (1, 2, 3)
    rows = floor_directions(sample, 6, seed=0, leave_out=[name for name in FLOORS if name != "floor/neurons"])
    neurons = FixedDictionary(rows["floor/neurons"], coder=RefittedTopK(2), offset=sample.mean(0))
    output = neurons.forward(torch.tensor([[4.0, -1.0, 3.5]]))  # deviations 3, -3, 0.5
    assert output.reconstruction.tolist() == [[4.0, -1.0, 3.0]]
    assert output.sparse_latents().to_dense().tolist() == [[3.0, 0, 0, 0, 3.0, 0]]


def test_dictionaries_nobody_trained_come_for_every_sparsity():
    sample = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    built = unlearned_dictionaries(sample, 8, (1, 3))
    assert set(built) == {
        f"{name} k={k}" for name in ("neurons", "random", "data rows", "shuffled rows", "pca", "kmeans") for k in (1, 3)
    }
    for name, dictionary in built.items():
        fired = dictionary.forward(sample).sparse_latents().offsets.diff()
        assert fired.max() <= int(name[-1])
