from itertools import combinations
from math import sqrt

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment

from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import dataset_a
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.stability import jackknife_interval, prediction_interval, stability, stability_of
from sae_toolkit.saes.coders import LinearTopK


def rows(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def near(D, noise, seed):
    return D / D.norm(dim=1, keepdim=True) + noise * rows(*D.shape, seed=seed)


def values(found):
    return {name: score.value for name, score in found.scores.items()}


def test_copies_are_perfectly_stable():
    D = rows(40)
    found = stability({"a": D, "b": D, "c": D})
    assert values(found) == pytest.approx(dict.fromkeys(values(found), 1.0))
    assert found.above_floor
    assert (found.found_in["a"] == 3).all()


def test_order_and_scale_change_nothing():
    g = torch.Generator().manual_seed(3)
    D, E = rows(40), near(rows(40), 0.2, 1)
    changed = E[torch.randperm(40, generator=g)] * (0.1 + torch.rand(40, 1, generator=g))
    assert values(stability({"a": D, "b": changed})) == pytest.approx(values(stability({"a": D, "b": E})))


def test_negated_directions_are_others():
    D = rows(40)
    found = stability({"a": D, "b": -D})
    assert found.scores["pw_mcc"].value < 0.75  # nothing better than other rows happen to be
    assert found.scores["pw_mcc"].value == pytest.approx(found.scores["pw_mcc"].floor, abs=0.1)


def test_the_assignment_is_scipys():
    D, E = rows(30, seed=1), rows(50, seed=2)
    unit = lambda X: (X / X.norm(dim=1, keepdim=True)).double().numpy()  # noqa: E731
    cosines = unit(D) @ unit(E).T
    left, right = linear_sum_assignment(-np.maximum(cosines, 0))
    paired = np.maximum(cosines[left, right], 0)
    pair = stability({"a": D, "b": E}).pairs["a", "b"]
    assert pair.pw_mcc == pytest.approx(paired.mean(), abs=1e-6)
    assert pair.shared == pytest.approx((paired >= 0.7).mean())
    assert pair.cross_mmcs == pytest.approx((cosines.max(0).mean() + cosines.max(1).mean()) / 2, abs=1e-6)


def test_chance_is_the_floor():
    found = stability({str(i): rows(60, seed=10 + i) for i in range(3)})
    low, high = found.floor_intervals["pw_mcc"]
    assert low < found.scores["pw_mcc"].value < high
    assert found.scores["pw_mcc"].floor == pytest.approx((low + high) / 2)
    assert not found.above_floor


def test_dead_latents_take_no_part():
    D = rows(40)
    E = torch.cat([D[:30], rows(10, seed=9)])
    alive = {"a": torch.arange(40) < 30, "b": torch.arange(40) < 30}
    found = stability({"a": D, "b": E}, alive=alive)
    assert found.scores["pw_mcc"].value == pytest.approx(1.0)
    assert found.n_alive == {"a": 30, "b": 30}
    assert found.reproducibility["a"][30:].isnan().all()
    assert (found.found_in["b"][30:] == 0).all()


def test_nothing_alive_has_no_answer():
    found = stability({"a": rows(10), "b": rows(10)}, alive={"a": torch.zeros(10).bool(), "b": torch.ones(10).bool()})
    assert found.scores["pw_mcc"].value != found.scores["pw_mcc"].value
    assert not found.above_floor


def test_a_wider_sae_holds_the_narrow_one():
    D = rows(40)
    found = stability({"narrow": D, "wide": torch.cat([D, rows(40, seed=5)])})
    assert found.scores["pw_mcc"].value == pytest.approx(1.0)
    assert found.found_in["wide"][:40].tolist() == [2] * 40
    # 40 + 40 of 120 latents are found in both, and whichever of the others has a close unpaired neighbour is not
    assert found.scores["found_in_2"].value == pytest.approx(80 / 120)


def test_a_duplicate_has_no_partner():
    D = torch.eye(4)
    found = stability({"a": D, "b": torch.cat([D, D[:1]])})
    assert sorted(found.reproducibility["b"].tolist()) == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_found_in_counts_by_hand():
    # c holds e3 and e4 in place of e1 and e2: of the 3 * 4 latents, e5 e6 are in all three, e1 e2 in two
    e = torch.eye(8)
    found = stability({"a": e[[0, 1, 4, 5]], "b": e[[0, 1, 4, 5]], "c": e[[2, 3, 4, 5]]})
    assert found.scores["found_in_2"].value == pytest.approx(10 / 12)
    assert found.scores["found_in_3"].value == pytest.approx(6 / 12)
    assert found.found_in["c"].tolist() == [1, 1, 3, 3]
    assert found.reproducibility["a"].tolist() == [0.5, 0.5, 1.0, 1.0]


def test_jackknife_by_slow_loop():
    names = "abcde"
    effect = dict(zip(names, (0.1, 0.3, -0.2, 0.0, 0.05), strict=True))
    pairs = list(combinations(names, 2))
    scored = [effect[a] * effect[b] + effect[a] + effect[b] for a, b in pairs]
    pseudo = []
    for name in names:
        rest = [v for pair, v in zip(pairs, scored, strict=True) if name not in pair]
        pseudo.append(5 * np.mean(scored) - 4 * np.mean(rest))
    expected = stats.t.interval(0.95, df=4, loc=np.mean(scored), scale=stats.sem(pseudo))
    assert jackknife_interval(pairs, scored) == pytest.approx(expected)
    assert jackknife_interval([("a", "b")], [0.5]) == (None, None)


def test_prediction_interval_is_the_textbooks():
    x = [0.1, 0.4, 0.2, 0.3]
    half = stats.t.ppf(0.975, df=3) * np.std(x, ddof=1) * sqrt(1 + 1 / 4)
    assert prediction_interval(x) == pytest.approx((0.25 - half, 0.25 + half))


def test_alive_is_decided_on_data():
    source = SuperpositionSource(dataset_a(0))
    D = torch.cat([source.directions, -source.directions[:10]])  # a sum of non-negative features never points there
    found = stability_of({name: FixedDictionary(D, coder=LinearTopK(2)) for name in "ab"}, source, n_samples=2000)
    assert found.n_alive["a"] < 266
    assert found.scores["pw_mcc"].value == pytest.approx(1.0)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        stability({"a": rows(4)})
    with pytest.raises(ValueError, match="d_in differs"):
        stability({"a": rows(4, 8), "b": rows(4, 9)})
    with pytest.raises(ValueError, match="one mask for each"):
        stability({"a": rows(4), "b": rows(4)}, alive={"a": torch.ones(4).bool()})
    with pytest.raises(ValueError, match="n_floors=1"):
        stability({"a": rows(4), "b": rows(4)}, n_floors=1)
