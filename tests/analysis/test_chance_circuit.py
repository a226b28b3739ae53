import pytest
import torch

from sae_toolkit.activations import planted_skip_trigrams, random_heads
from sae_toolkit.analysis import KnownCircuit, chance_scores, circuit_scores
from sae_toolkit.seeding import generator_for

N = 24
TRIGRAMS = [(1 + i, 9 + i % 4, 13 + i) for i in range(8)]
WEIGHTS = planted_skip_trigrams([TRIGRAMS], n_tokens=N, strength=2.0)


def known_in(weights):
    numbers = torch.arange(8)
    return KnownCircuit.of_tokens(
        weights,
        sources=1 + numbers,
        destinations=torch.arange(9, 13),
        outputs=13 + numbers,
        candidates=torch.arange(13, 21),
        attends=torch.arange(4)[:, None] == numbers % 4,
    )


def test_the_closest_of_very_many_directions_is_the_word_and_of_one_it_is_none():
    """In few dimensions thousands of directions come close to every word; drawn without looking they say nothing."""
    weights = random_heads(n_layers=1, n_heads=1, d_model=3, d_head=3, d_vocab=N, seed=1)
    true = circuit_scores(weights, 0, known_in(weights))["all heads"]
    found = chance_scores(weights, 0, known_in(weights), d_sae=20_000, n_draws=2)
    assert found["closest"]["ov_top1"].value == true["ov_top1"].value
    assert found["closest"]["qk_auroc"].value == pytest.approx(true["qk_auroc"].value, abs=0.05)
    one = chance_scores(weights, 0, known_in(weights), d_sae=1, n_draws=10)
    assert one["closest"]["ov_top1"].value == one["drawn"]["ov_top1"].value <= 1 / 8  # one direction, one answer


def test_drawn_directions_score_chance_however_good_the_circuit():
    true = circuit_scores(WEIGHTS, 0, known_in(WEIGHTS))["all heads"]
    assert true["ov_top1"].value == true["qk_auroc"].value == 1.0
    found = chance_scores(WEIGHTS, 0, known_in(WEIGHTS), d_sae=64, n_draws=100)
    score = found["drawn"]["ov_top1"]
    assert score.n == 100
    assert score.value == pytest.approx(1 / 8, abs=3 * (1 / 8 * 7 / 8 / 800) ** 0.5)
    assert found["drawn"]["qk_auroc"].value == pytest.approx(0.5, abs=0.04)
    assert found["closest"]["ov_top1"].value > 0.3


def test_the_closest_by_a_loop():
    """The same draws, the same words, one after the other."""
    known = known_in(WEIGHTS)
    found = chance_scores(WEIGHTS, 0, known, d_sae=30, n_draws=3, seed=4)["closest"]["ov_top1"]
    right = []
    for draw in range(3):
        directions = drawn_directions(30, WEIGHTS.d_model, seed=4, draw=draw)
        for source, expected in zip(known.sources, known.expected.tolist(), strict=True):
            best = max(directions, key=lambda d: float(d @ source) / float(d.norm()))
            right.append(int((best @ WEIGHTS.W_V[0, 0] @ WEIGHTS.W_O[0, 0] @ known.targets).argmax()) == expected)
    assert found.value == pytest.approx(sum(right) / len(right))


def drawn_directions(n, d_model, *, seed, draw):
    return torch.randn(n, d_model, generator=generator_for(seed, "directions of chance", draw))


def test_the_same_seed_draws_the_same():
    first, again = (chance_scores(WEIGHTS, 0, known_in(WEIGHTS), d_sae=20, n_draws=3, seed=7) for _ in range(2))
    assert first == again
    assert first != chance_scores(WEIGHTS, 0, known_in(WEIGHTS), d_sae=20, n_draws=3, seed=8)
