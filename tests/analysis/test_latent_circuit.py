import pytest
import torch

from sae_toolkit.activations import planted_skip_trigrams
from sae_toolkit.analysis import TrigramDetectors, edge_scores, latent_circuit_scores, latent_table
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.firing_matching import FiringMatching
from sae_toolkit.saes.coders import LinearTopK

WEIGHTS = planted_skip_trigrams([[(1, 5, 7), (2, 5, 8), (3, 6, 9), (4, 6, 10)]], n_tokens=12, strength=2.0)
ATTENDS = torch.tensor([[True, True, False, False], [False, False, True, True]])


def standing_for(latents):
    ones = torch.ones(len(latents), dtype=torch.float64)
    return FiringMatching(torch.tensor(latents), ones, ones, ones)


def measured(sources):
    # Latents before are embeddings in reverse order, latents behind the directions of logits, shifted by one.
    before = FixedDictionary(WEIGHTS.W_E.flip(0), coder=LinearTopK(1))
    behind = FixedDictionary(WEIGHTS.W_U.T.roll(1, 0), coder=LinearTopK(1))
    found = TrigramDetectors(standing_for(sources), standing_for([6, 5]), standing_for([8, 9, 10, 11]), torch.ones(12))
    truth = {"outputs": torch.tensor([7, 8, 9, 10]), "candidates": torch.arange(12), "attends": ATTENDS}
    return latent_circuit_scores(WEIGHTS, 0, before, behind, found, **truth), latent_table(
        WEIGHTS, 0, before, behind, found
    )


def test_latents_that_are_tokens_recover_the_planted_circuit():
    scores, table = measured([10, 9, 8, 7])
    assert [scores["head 0"][name].value for name in ("ov_top1", "qk_top1", "qk_auroc")] == [1.0, 1.0, 1.0]
    assert scores["to latents"]["ov_top1"].value == scores["to latents"]["skip_trigram_top1"].value == 1.0
    assert scores["detectors"]["f1_sources"].value == 1.0
    torch.testing.assert_close(table, 2.0 * torch.eye(4))


def test_a_source_without_a_latent_is_missed():
    scores, table = measured([10, -1, 8, 7])
    assert scores["all heads"]["ov_top1"].value == 0.75
    assert scores["to latents"]["ov_top1"].value == 0.75
    assert table[1].tolist() == [0.0] * 4
    assert scores["head 0"]["qk_auroc"].value == pytest.approx(
        (3 / 4 + 1) / 2
    )  # thing 1: 1 and 1/2; thing 2: zeros lie below


def test_the_strongest_edge_of_a_source_counts_by_magnitude():
    ones = torch.ones(3)
    found = TrigramDetectors(standing_for([2, 0, -1]), standing_for([1]), standing_for([1, 0, 0]), ones)
    table = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1.0, -2.0]]).double()
    assert edge_scores(table, found)["edge_top1"].value == pytest.approx(1 / 3)  # right; wrong; no latent
