import pytest
import torch
from sklearn.metrics import roc_auc_score

from sae_toolkit.activations import planted_skip_trigrams, random_heads
from sae_toolkit.analysis import Factored, KnownCircuit, circuit_scores, relation_auroc, top1_share
from sae_toolkit.analysis.circuit_recovery import group_top1_share, places_in

TABLE = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0], [0.0, 0.0, 5.0]])


def test_top1_by_hand():
    table = Factored(torch.eye(3), TABLE)
    assert top1_share(table, torch.tensor([1, 0, 2]), name="x").value == 1.0
    assert top1_share(table, torch.tensor([2, 0, -1]), name="x").value == pytest.approx(1 / 3)
    related = torch.tensor([[True, True, False], [False, True, True], [True, True, False]])
    assert group_top1_share(TABLE, related, name="x").value == pytest.approx(1 / 3)


def test_auroc_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(5, 12, generator=generator).round(decimals=1)
    related = torch.rand(5, 12, generator=generator) < 0.3
    related[:, 0], related[:, 1] = True, False
    expected = [roc_auc_score(on.numpy(), row.numpy()) for on, row in zip(related, table, strict=True)]
    found = relation_auroc(table, related, name="qk_auroc")
    assert found.value == pytest.approx(sum(expected) / 5)
    assert found.id == "qk_auroc/v1"


def test_a_planted_circuit_is_recovered_and_a_random_one_is_not():
    trigrams = [(1, 5, 7), (2, 5, 8), (3, 6, 9), (4, 6, 10)]
    planted = planted_skip_trigrams(
        [trigrams, [(a, b, 11) for a, b, _ in trigrams], trigrams], n_tokens=12, strength=2.0
    )

    def known(weights):
        return KnownCircuit.of_tokens(
            weights,
            sources=torch.tensor([1, 2, 3, 4]),
            destinations=torch.tensor([5, 6]),
            outputs=torch.tensor([7, 8, 9, 10]),
            candidates=torch.arange(12),
            attends=torch.tensor([[True, True, False, False], [False, False, True, True]]),
        )

    found = circuit_scores(planted, 0, known(planted))
    assert [found["head 0"][name].value for name in ("qk_top1", "qk_auroc", "ov_top1")] == [1.0, 1.0, 1.0]
    assert found["best head"] == found["head 0"]
    assert found["head 1"]["ov_top1"].value == 0.0
    assert found["all heads"]["ov_top1"].value == 1.0  # two heads say what one contradicts
    assert found["trigrams"]["skip_trigram_top1"].value == 1.0
    blank = random_heads(n_layers=1, n_heads=2, d_model=16, d_head=4, d_vocab=12, seed=0)
    assert circuit_scores(blank, 0, known(blank))["all heads"]["ov_top1"].value <= 0.5


def test_outputs_must_be_candidates():
    assert places_in(torch.tensor([4, 9, 2]), torch.tensor([2, 4])).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"outputs \[5\] asked"):
        places_in(torch.tensor([4, 9]), torch.tensor([9, 5]))


def test_heads_that_look_elsewhere_do_not_count_in_trigrams():
    # The second head says 11 for every source, ten times as loudly, but only to the thing of the other source.
    weights = planted_skip_trigrams([[(1, 5, 7), (2, 6, 8)], [(1, 6, 11), (2, 5, 11)]], n_tokens=12, strength=2.0)
    weights.W_O[0, 1] *= 10
    ids = {"sources": [1, 2], "destinations": [5, 6], "outputs": [7, 8]}
    known = KnownCircuit.of_tokens(
        weights,
        **{name: torch.tensor(numbers) for name, numbers in ids.items()},
        candidates=torch.arange(12),
        attends=torch.eye(2).bool(),
    )
    found = circuit_scores(weights, 0, known)
    assert found["all heads"]["ov_top1"].value == 0.0
    assert found["head 0"]["ov_top1"].value == 1.0
    assert found["trigrams"]["skip_trigram_top1"].value == 1.0
