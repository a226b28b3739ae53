"""Scores with floors and ceilings in one call, and their means over seeds."""

from statistics import mean, stdev

import pytest
import torch
from fake_splicing import WIDTHS, FakeSplicingSource
from toy import ToySource, small_config, toy_batch

from sae_toolkit import (
    AbstractSAE,
    BatchTopKSAE,
    ReluSAE,
    SkipTopKTranscoder,
    TopKCrosscoder,
    TopKSAE,
    TopKTranscoder,
)
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.activations.splicing_site import site_of
from sae_toolkit.ground_truth import IndependentFiring, RectifiedNormalMagnitudes, World, random_directions
from sae_toolkit.metrics import Ladder, Score, over_seeds, score_recovery, score_with_controls, with_controls
from sae_toolkit.metrics.ladder import group_of


@pytest.fixture(scope="module")
def world() -> World:
    return World(
        directions=random_directions(12, 8, seed=0),
        firing=IndependentFiring(probabilities=torch.full((12,), 0.15)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(12, mean=1.0, std=0.25),
    )


def fitted(variant: type[AbstractSAE]) -> AbstractSAE:
    sae = variant(small_config(variant, d_sae=16), seed=0)
    sae.normaliser.fit_(toy_batch(256))
    sae.calibrate_([toy_batch(256)])
    return sae.eval()


def test_every_score_gets_the_random_dictionary_as_floor_and_the_truth_as_ceiling(world: World) -> None:
    ladder = score_with_controls({"a": fitted(TopKSAE)}, SuperpositionSource(world), n_samples=2000, seed=0)
    score = ladder.saes["a"]["mean_matched_cosine"]
    assert score.ceiling == pytest.approx(1.0)  # the true directions match themselves
    assert score.floor == ladder.controls["floor/random"]["mean_matched_cosine"].value
    assert 0 < score.floor < 1


def test_the_short_ladder_has_random_directions_as_floor_and_clusters_as_rival(world: World) -> None:
    found = score_recovery({"a": fitted(TopKSAE)}, SuperpositionSource(world), k=2, n_samples=1000)
    assert list(found) == ["a", "random", "k-means"]
    floor = found["random"]["mean_matched_cosine"].value
    assert {scores["mean_matched_cosine"].floor for scores in found.values()} == {floor}
    assert found["k-means"]["mean_matched_cosine"].value > found["random"]["mean_matched_cosine"].value


def test_saes_of_two_sparsities_have_controls_of_their_own(world: World) -> None:
    two = {"k3": fitted(TopKSAE), "k1": TopKSAE(TopKSAE.Config(d_in=8, d_sae=16, k=1)).eval()}
    ladder = score_with_controls(two, SuperpositionSource(world), n_samples=500, seed=0, leave_out=("floor/ica",))
    assert {"floor/kmeans k=3", "floor/kmeans k=1", "floor/untrained k=3"} <= set(ladder.controls)
    assert ladder.controls["floor/random k=1"]["l0"].value <= 1
    assert not any("ica" in name for name in ladder.controls)


def test_without_truth_the_ceiling_is_the_own_dictionary_with_better_inference() -> None:
    ladder = score_with_controls({"a": fitted(BatchTopKSAE), "b": fitted(ReluSAE)}, ToySource(), n_samples=500, seed=0)
    pursued = ladder.controls["ceiling/a with OMP"]["explained_variance"]
    assert ladder.saes["a"]["explained_variance"].ceiling == pursued.value
    assert "mean_matched_cosine" not in ladder.saes["a"]


@pytest.fixture(scope="module")
def two_sites() -> Ladder:
    saes = {"b": small_topk(WIDTHS["late"]), "a": small_topk(WIDTHS["early"])}
    where = {"a": "early", "b": "late"}
    return score_with_controls(saes, FakeSplicingSource(), n_samples=200, sites=where, loss_tokens=80, leave_out=SLOW)


SLOW = ("floor/ica", "floor/kmeans")


def small_topk(d_in: int) -> AbstractSAE:
    return TopKSAE(TopKSAE.Config(d_in=d_in, d_sae=8, k=2)).eval()


def test_each_sae_is_scored_at_its_own_site(two_sites: Ladder) -> None:
    assert list(two_sites.saes) == ["b", "a"]
    for name, site in (("a", "early"), ("b", "late")):
        there = site_of(FakeSplicingSource(), site)
        alone = score_with_controls(
            {name: small_topk(there.d_in)}, there, n_samples=200, loss_tokens=80, leave_out=SLOW
        )
        assert two_sites.saes[name] == alone.saes[name]
        assert {
            f"{key} at {site}": found for key, found in alone.controls.items()
        }.items() <= two_sites.controls.items()


def test_controls_say_their_site_where_there_are_several(two_sites: Ladder) -> None:
    assert {"floor/random at early", "floor/random at late", "ceiling/a with OMP at early"} <= set(two_sites.controls)
    assert all(key.endswith((" at early", " at late")) for key in two_sites.controls)


def test_a_language_model_is_asked_for_its_losses(two_sites: Ladder) -> None:
    score = two_sites.saes["a"]["ce_recovered_mean"]
    assert score.n == 80
    assert score.floor == two_sites.controls["floor/random at early"]["ce_recovered_mean"].value
    assert score.ceiling == two_sites.controls["ceiling/a with OMP at early"]["ce_recovered_mean"].value


def test_the_ladder_counts_what_was_left_out(two_sites: Ladder) -> None:
    assert two_sites.excluded == {"position": 1}  # one batch of 1,024 asked, one token left out of each
    assert over_seeds([two_sites, two_sites]).excluded == {"position": 2}


@pytest.mark.parametrize(
    ("sites", "complaint"),
    [
        ({"a": "early"}, "no site is given for SAE 'b'"),
        ({"a": "early", "b": "lat"}, "Did you mean 'late'"),
        ({"a": "early", "b": "late", "c": "late"}, "one is given for \\['c'\\]"),
    ],
)
def test_unclear_sites_are_refused(sites: dict[str, str], complaint: str) -> None:
    saes = {"a": small_topk(WIDTHS["early"]), "b": small_topk(WIDTHS["late"])}
    with pytest.raises(ValueError, match=complaint):
        score_with_controls(saes, FakeSplicingSource(), n_samples=20, sites=sites)


def test_no_sae_is_an_error() -> None:
    with pytest.raises(ValueError, match="no SAE given"):
        score_with_controls({}, ToySource(), n_samples=20)


def test_the_only_site_may_be_named_or_not() -> None:
    saes = {"a": fitted(TopKSAE)}
    named = score_with_controls(saes, ToySource(), n_samples=50, sites={"a": "activations"}, leave_out=SLOW)
    assert named == score_with_controls(saes, ToySource(), n_samples=50, leave_out=SLOW)


@pytest.mark.parametrize(
    ("l0", "group"), [(6.55, (16, 6)), (5.5, (16, 6)), (6.7, (16, 7)), (0.2, (16, 1)), (12.0, (16, 12))]
)
def test_saes_of_about_one_sparsity_share_their_controls(l0: float, group: tuple[int, int]) -> None:
    assert group_of(16, l0, [(32, 7), (16, 6)]) == group


def test_means_over_seeds_have_students_interval() -> None:
    values = [0.90, 0.94, 0.98]
    ladders = [
        Ladder({"a": {"l0": Score(value=v, floor=0.1, ceiling=1.0, n=50, id="l0/v1")}}, {"floor/random": {}})
        for v in values
    ]
    merged = over_seeds(ladders).saes["a"]["l0"]
    half = 4.302653 * stdev(values) / 3**0.5  # 97.5 % quantile of Student's t with 2 degrees of freedom
    assert merged.value == pytest.approx(mean(values))
    assert merged.low == pytest.approx(mean(values) - half, abs=1e-6)
    assert merged.high == pytest.approx(mean(values) + half, abs=1e-6)
    assert (merged.floor, merged.ceiling, merged.n) == (pytest.approx(0.1), 1.0, 3)


def test_more_controls_scores_and_a_ceiling_join_a_ladder():
    def score(value, name="a"):
        return Score(value=value, floor=0.1, n=3, id=f"{name}/v1")

    ladder = Ladder({"sae": {"a": score(0.5), "b": score(0.6, "b")}}, {"floor/random": {"a": score(0.1)}})
    joined = with_controls(
        ladder,
        {"ceiling/probe": {"a": score(0.9)}},
        ceiling={"a": score(0.9)},
        more={"sae": {"c": score(0.2, "c"), "b": score(0.7, "b")}},
    )
    assert joined.saes["sae"]["a"].ceiling == 0.9
    assert joined.saes["sae"]["a"].floor == 0.1
    assert joined.saes["sae"]["b"] == ladder.saes["sae"]["b"]
    assert joined.saes["sae"]["c"].value == 0.2
    assert set(joined.controls) == {"floor/random", "ceiling/probe"}
    assert "c" not in ladder.saes["sae"]


def small_transcoder(kind: type[AbstractSAE] = TopKTranscoder) -> AbstractSAE:
    return kind(kind.Config(d_in=6, d_out=4, d_sae=8, k=2)).eval()


def test_a_transcoder_has_controls_that_read_one_site_and_predict_another() -> None:
    saes = {"mlp": small_transcoder(), "skip": small_transcoder(SkipTopKTranscoder), "sae": small_topk(WIDTHS["late"])}
    with torch.no_grad():
        saes["skip"].W_skip += 0.1
    ladder = score_with_controls(
        saes,
        FakeSplicingSource(),
        n_samples=200,
        sites={"mlp": "early", "skip": "early", "sae": "late"},
        targets={"mlp": "late", "skip": "late"},
        loss_tokens=80,
        leave_out=SLOW,
    )
    assert list(ladder.saes) == ["mlp", "skip", "sae"]
    where = " at early to late"
    assert {f"floor/{name}{where}" for name in ("random", "linear_map", "untrained")} <= set(ladder.controls)
    for name in ("explained_variance", "ce_recovered_mean"):
        score = ladder.saes["mlp"][name]
        assert score.floor == ladder.controls[f"floor/random{where}"][name].value
        assert score.ceiling == ladder.controls[f"ceiling/mlp with OMP{where}"][name].value
        assert ladder.saes["skip"][name].ceiling is None  # its latents write what the skip leaves over
        assert ladder.saes["sae"][name].floor == ladder.controls["floor/random at late"][name].value
    assert ladder.controls[f"floor/linear_map{where}"]["l0"].value == WIDTHS["early"]
    chance, pursuit = (ladder.controls[f"{key}{where}"] for key in ("floor/random", "ceiling/mlp with OMP"))
    assert 0 < chance["explained_variance"].value < pursuit["explained_variance"].value


def test_a_crosscoder_has_controls_of_all_its_sites() -> None:
    crosscoder = TopKCrosscoder(TopKCrosscoder.Config(d_in=10, site_widths=(6, 4), d_sae=8, k=2)).eval()
    both = ("early", "late")
    ladder = score_with_controls(
        {"both": crosscoder}, FakeSplicingSource(), n_samples=200, sites={"both": both}, leave_out=SLOW
    )
    for name in ("explained_variance", "explained_variance_of_early", "explained_variance_of_late"):
        score = ladder.saes["both"][name]
        assert score.floor == ladder.controls["floor/random"][name].value
        assert score.ceiling == ladder.controls["ceiling/both with OMP"][name].value


@pytest.mark.parametrize(
    ("sae", "targets", "complaint"),
    [
        (small_transcoder(), {}, "'a' predicts another site: say which"),
        (small_topk(6), {"a": "late"}, "'a' rebuilds what it reads: give it none"),
        (small_transcoder(), {"a": "lat"}, "Did you mean 'late'"),
        (small_transcoder(), {"a": "early"}, "'a' predicts d_out=4 numbers, but early is 6 wide"),
    ],
)
def test_an_unclear_target_is_refused(sae: AbstractSAE, targets: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        score_with_controls({"a": sae}, FakeSplicingSource(), n_samples=10, sites={"a": "early"}, targets=targets)
