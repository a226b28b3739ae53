import numpy as np
import pytest
import torch
from scipy import stats

from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import dataset_a
from sae_toolkit.metrics.bootstrap import BlockSums, ratio
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.paired import (
    compare_ratios,
    compare_saes,
    compare_sums,
    compare_tables,
    compare_units,
    score_units,
    table_of,
)
from sae_toolkit.metrics.score_units import ScoreUnits, block_units
from sae_toolkit.saes.coders import LinearTopK, MatchingPursuit


def units(values, id="x/v1", unit="feature"):
    return ScoreUnits(np.asarray(values, dtype=np.float64), unit, id)


def test_a_constant_advantage_is_certain():
    a = np.random.default_rng(0).uniform(size=50)
    found = compare_units(units(a + 0.1), units(a))
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.p_value == pytest.approx(2 / 4001)
    assert found.excludes_zero


def test_an_sae_against_itself_differs_by_nothing():
    a = units(np.random.default_rng(0).uniform(size=50))
    found = compare_units(a, a)
    assert (found.difference, found.p_value, found.excludes_zero) == (0.0, 1.0, False)


def test_sides_can_be_swapped():
    rng = np.random.default_rng(0)
    a, b = units(rng.uniform(size=50)), units(rng.uniform(size=50))
    there, back = compare_units(a, b), compare_units(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p_value == pytest.approx(back.p_value)


def test_pairs_agree_with_the_paired_t_test():
    rng = np.random.default_rng(0)
    easy = rng.normal(size=400)  # what both share, ten times the noise
    a, b = easy + 0.1 * rng.normal(size=400) + 0.012, easy + 0.1 * rng.normal(size=400)
    expected = stats.ttest_rel(a, b)
    found = compare_units(units(a), units(b))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), abs=0.0015)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)


def test_what_one_cannot_answer_is_left_out_of_both():
    found = compare_units(units([np.nan, *[1.0] * 9]), units([*[0.5] * 9, np.nan]))
    assert (found.n_units, found.difference) == (8, 0.5)


def test_different_questions_are_refused():
    with pytest.raises(ValueError, match=r"y/v1 over 8 features"):
        compare_units(units(np.ones(8)), units(np.ones(8), id="y/v1"))
    with pytest.raises(ValueError, match="over 9 features"):
        compare_units(units(np.ones(8)), units(np.ones(9)))
    with pytest.raises(ValueError, match="different scores"):
        table_of([units(np.ones(8)), units(np.ones(8), id="y/v1")])


def test_ratios_share_their_blocks():
    # 3 / 2 in every block against 1: the difference is known exactly, whatever the sizes of the blocks
    sizes = torch.rand(40, generator=torch.Generator().manual_seed(0))
    a, b = BlockSums("top", "bottom"), BlockSums("top", "bottom")
    a.update(torch.arange(40), top=1.5 * sizes, bottom=sizes)
    b.update(torch.arange(40), top=sizes, bottom=sizes)
    found = compare_ratios(a, b, "top", "bottom", id="x/v1")
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
    b.update(torch.tensor([77]), top=sizes[:1], bottom=sizes[:1])
    with pytest.raises(ValueError, match="different blocks"):
        compare_ratios(a, b, "top", "bottom", id="x/v1")
    with pytest.raises(ValueError, match="same blocks"):
        compare_sums(np.ones((3, 2)), np.ones((4, 2)), ratio, id="x/v1")


def test_jackknife_values_have_the_score_as_mean_and_its_standard_error():
    rng = np.random.default_rng(0)
    b = rng.uniform(1, 2, size=200)
    a = b * rng.normal(3, 0.5, size=200)
    r = a.sum() / b.sum()
    delta = np.sqrt(((a - r * b) ** 2).mean() / 200) / b.mean()
    values = block_units(np.stack([a, b], 1), ratio, "x/v1").values
    assert values.mean() == pytest.approx(r, abs=1e-12)
    assert stats.sem(values) == pytest.approx(delta, rel=0.02)


def test_tables_of_seeds_agree_with_the_t_test_of_their_means():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 30)) + 1, rng.normal(size=(4, 30))
    found = compare_tables(a, b, design="nested", id="x/v1")
    expected = stats.ttest_rel(a.mean(1), b.mean(1))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    with pytest.raises(ValueError, match="as many seeds"):
        compare_tables(a, b[:3], design="nested", id="x/v1")


def test_a_better_coder_wins_on_the_same_samples():
    source = SuperpositionSource(dataset_a(0))
    by_pursuit, by_product = (
        FixedDictionary(source.directions, coder=coder) for coder in (MatchingPursuit(6), LinearTopK(6))
    )
    found = compare_saes(by_pursuit, by_product, source, n_samples=1500)
    assert found["activation_f1"].low > 0.1  # .91 against .74
    assert found["mean_matched_cosine"].difference == 0.0
    scored = score_units({"a": by_pursuit}, source, n_samples=1500)["a"]
    assert found["explained_variance"].n_units == len(scored["explained_variance"].values) == 47
