import numpy as np
import pytest
import torch

from sae_toolkit import TopKSAE
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import dataset_a
from sae_toolkit.metrics.controls import CEILING, ceilings
from sae_toolkit.metrics.detection import LatentDetection
from sae_toolkit.metrics.gap import SPLIT, Gap, gaps, split_over_seeds
from sae_toolkit.metrics.paired import score_units
from sae_toolkit.metrics.reconstruction import Reconstruction
from sae_toolkit.metrics.score_units import ScoreUnits
from sae_toolkit.saes.coders import LinearTopK, MatchingPursuit

N = 1500


@pytest.fixture(scope="module")
def source():
    return SuperpositionSource(dataset_a(0))


def sae_of(directions):
    """An SAE with these decoder rows, read by one product and a top 6."""
    sae = TopKSAE(TopKSAE.Config(d_in=64, d_sae=256, k=6, normaliser="none")).eval()
    sae.W_dec.data.copy_(directions)
    sae.W_enc.data.copy_(directions.T)
    return sae


def means(gap):
    return [float(np.nanmean(units.values)) for units in gap]


def test_the_true_dictionary_lacks_only_the_encoder(source):
    found = gaps({"sae": sae_of(source.directions)}, source, n_samples=N)["sae"]
    for gap in found.values():
        split = gap.split()
        assert split["dictionary_gap"].difference == pytest.approx(0.0, abs=1e-6)
        assert split["amortisation_gap"].difference == pytest.approx(split["shortfall"].difference, abs=1e-6)
    # .978 by lasso, .743 by one product (reference values on this world)
    assert found["activation_f1"].split()["amortisation_gap"].difference == pytest.approx(0.978 - 0.743, abs=0.02)


def test_a_dictionary_read_as_well_as_can_be_lacks_only_directions(source):
    # the coder in the place of exact inference is the SAE's own: nothing is left to amortise
    noise = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    rows = source.directions + 0.05 * noise
    sae = sae_of(rows / rows.norm(dim=1, keepdim=True))
    found = gaps({"sae": sae}, source, n_samples=N, coder=LinearTopK(6))["sae"]
    for gap in found.values():
        assert gap.split()["amortisation_gap"].difference == pytest.approx(0.0, abs=1e-6)
    assert found["activation_f1"].split()["dictionary_gap"].low > 0


def test_the_parts_add_up(source):
    rows = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    found = gaps({"sae": sae_of(rows / rows.norm(dim=1, keepdim=True))}, source, n_samples=500)["sae"]
    assert set(found) == set(SPLIT)
    for name, gap in found.items():
        split = gap.split()
        total = split["dictionary_gap"].difference + split["amortisation_gap"].difference
        assert split["shortfall"].difference == pytest.approx(total)
        scores = gap.scores(name)
        assert scores[f"{name}_shortfall"].id == f"{name}_shortfall/v1"
        assert scores[f"{name}_shortfall"].value == pytest.approx(total)


def test_ceilings_of_the_reference_world(source):
    metrics = lambda: [Reconstruction(), LatentDetection(source.directions)]  # noqa: E731
    found = score_units(ceilings(source.directions, k=6), source, n_samples=N, metrics=metrics)
    f1 = {name: float(np.nanmean(units["activation_f1"].values)) for name, units in found.items()}
    assert f1["ceiling/true_topk"] == pytest.approx(0.743, abs=0.02)
    assert f1["ceiling/true_omp"] == pytest.approx(0.912, abs=0.02)
    assert f1[CEILING] == pytest.approx(0.997, abs=0.02)


def test_over_seeds_by_hand():
    # perfect 1, learned .8 .7 .6, own .5 in 9 units: gaps .2 .3 .4 and .3 .2 .1
    def units(value):
        return ScoreUnits(np.full(9, value), "feature", "x/v1")

    found = split_over_seeds([Gap(units(1.0), units(0.8 - 0.1 * i), units(0.5)) for i in range(3)], design="nested")
    assert found["dictionary_gap"].difference == pytest.approx(0.3)
    assert found["dictionary_gap"].high - 0.3 == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)  # t(2) s / sqrt(3)
    assert found["amortisation_gap"].difference == pytest.approx(0.2)
    assert found["shortfall"].low == pytest.approx(0.5)


def test_pursuit_may_stand_for_exact_inference(source):
    found = gaps({"sae": sae_of(source.directions)}, source, n_samples=500, coder=MatchingPursuit(12))["sae"]
    assert means(found["activation_f1"])[0] > 0.98
