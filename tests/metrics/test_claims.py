import json

import numpy as np
import pytest

from sae_toolkit import TopKSAE
from sae_toolkit.activations import SuperpositionSource
from sae_toolkit.ground_truth import (
    IndependentFiring,
    RectifiedNormalMagnitudes,
    World,
    low_coherence_directions,
    uniform_probabilities,
)
from sae_toolkit.metrics.claims import claim, claims
from sae_toolkit.metrics.score_units import ScoreUnits
from sae_toolkit.recipe import load_recipe


def units(table, id="x/v1"):
    return [ScoreUnits(np.asarray(row, dtype=np.float64), "feature", id) for row in table]


def scatter(mean, n_seeds=3, n=64, seed=0):
    return mean + 0.05 * np.random.default_rng(seed).normal(size=(n_seeds, n))


def test_clearly_better_chance_and_worse():
    floor = units(scatter(0.3, seed=1))
    assert claim("x", sae=units(scatter(0.9)), floor=floor).verdict == "above floor"
    assert claim("x", sae=units(scatter(0.3)), floor=floor).verdict == "indistinguishable"
    assert claim("x", sae=units(scatter(0.1)), floor=floor).verdict == "below floor"


def test_less_is_better_for_some_scores():
    floor = units(scatter(0.3, seed=1), "fvu/v1")
    assert claim("fvu", sae=units(scatter(0.1), "fvu/v1"), floor=floor).verdict == "above floor"
    assert claim("fvu", sae=units(scatter(0.9), "fvu/v1"), floor=floor).verdict == "below floor"


def test_a_difference_below_the_floor_is_not_claimed():
    # both are worse than chance: that one is less bad is no finding
    low, lower, floor = units(scatter(0.2)), units(scatter(0.1, seed=2)), units(scatter(0.3, seed=1))
    found = claim("x", sae=low, rival=lower, floor=floor)
    assert found.against_rival.excludes_zero
    assert found.difference_claimed is False
    assert claim("x", sae=low, rival=lower, floor=units(scatter(0.0, seed=1))).difference_claimed is True
    assert claim("x", sae=low, rival=low, floor=units(scatter(0.0, seed=1))).difference_claimed is False


def test_a_paired_difference_is_not_enough_inside_the_floors_interval():
    # the floor's seeds differ so much that its interval reaches beyond the SAE, which beats it by .1 seed by seed
    offsets = np.array([[-0.5], [0.0], [0.5]])
    floor = scatter(0.3, seed=1) + offsets
    found = claim("x", sae=units(floor + 0.1), floor=units(floor))
    assert found.against_floor.excludes_zero
    assert found.verdict == "indistinguishable"


def test_seeds_are_mandatory():
    with pytest.raises(ValueError, match="at least 3 are needed"):
        claim("x", sae=units(scatter(0.9, 2)), floor=units(scatter(0.1, 2)))
    with pytest.raises(ValueError, match="at least 3 are needed"):
        claims([], SuperpositionSource(world(0)), n_samples=10)


def world(seed):
    return World(
        directions=low_coherence_directions(12, 8, seed=seed),
        firing=IndependentFiring(probabilities=uniform_probabilities(12, expected_l0=1.5)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(12, mean=1.0, std=0.2),
    )


def knowing(source, seed):
    """An SAE that was given the truth."""
    sae = TopKSAE(TopKSAE.Config(d_in=8, d_sae=12, k=2, normaliser="none"), seed=seed).eval()
    sae.W_dec.data.copy_(source.directions)
    sae.W_enc.data.copy_(source.directions.T)
    return sae


@pytest.mark.parametrize("shared", [True, False])
def test_one_call_from_saes_to_verdicts(shared):
    sources = [SuperpositionSource(world(0 if shared else seed)) for seed in range(3)]
    saes = [knowing(source, seed) for seed, source in enumerate(sources)]
    found = claims(
        saes,
        sources[0] if shared else sources,
        n_samples=600,
        rivals=[TopKSAE(sae.config, seed=9).eval() for sae in saes],
    )
    assert found.by_score["recall_at_0.9"].verdict == "above floor"
    assert found.by_score["recall_at_0.9"].value.value == 1.0
    assert found.by_score["recall_at_0.9"].ceiling.value == 1.0
    assert found.by_score["recall_at_0.9"].difference_claimed is True
    assert "l0" not in found.by_score
    rows = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {"id", "n_samples", "data_sha256", "verdict", "floor", "ceiling", "against_floor"} <= set(rows[0])
    assert rows[0]["n_samples"] == 600
    assert len(rows[0]["data_sha256"]) == 64


def test_the_hash_tells_data_apart():
    source, other = SuperpositionSource(world(0)), SuperpositionSource(world(1))
    saes = [knowing(source, seed) for seed in range(3)]
    hashes = [
        claims(saes, s, n_samples=n, seed=seed).data_sha256
        for s, n, seed in ((source, 100, 0), (source, 100, 0), (other, 100, 0), (source, 120, 0), (source, 100, 1))
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_what_does_not_fit_is_refused():
    source = SuperpositionSource(world(0))
    saes = [knowing(source, seed) for seed in range(3)]
    with pytest.raises(ValueError, match="choose among floor/random"):
        claims(saes, source, n_samples=10, control="floor/luck")
    with pytest.raises(ValueError, match="3 SAEs, 2 sources and 3 rivals"):
        claims(saes, [source, source], n_samples=10)


def test_the_gate_is_wrong_as_rarely_as_it_says():
    """The published rates at a fifth of their size, on replicates that do not follow the interval's assumptions."""
    gate = load_recipe("claims_gate").module
    config, rng = gate.SMOKE, np.random.default_rng(5)
    false = [gate.gate(config, [0.9, 0.9], rng).difference_claimed for _ in range(200)]
    seen = [gate.gate(config, [0.95, 0.9], rng).difference_claimed for _ in range(100)]
    assert 0.01 <= np.mean(false) <= 0.08
    assert np.mean(seen) >= 0.85
