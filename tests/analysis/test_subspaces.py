import pytest
import torch

from sae_toolkit.activations import random_heads, with_planted_composition
from sae_toolkit.analysis import (
    Factored,
    chance_overlap,
    cleared_dimensions,
    ov_circuit,
    overlap,
    qk_circuit,
    read_space,
    subspace,
    written_space,
)

AXES = torch.eye(6)


def test_overlaps_by_hand():
    plane, line = subspace(AXES[:, :2]), subspace(AXES[:, 1:2])
    assert overlap(plane, line) == pytest.approx(1.0)
    assert overlap(plane, subspace(AXES[:, 3:])) == pytest.approx(0.0)
    diagonal = subspace(AXES[:, :1] + AXES[:, 3:4])
    assert overlap(plane, diagonal) == pytest.approx(0.5)
    assert overlap(plane, subspace(AXES[:, 1:4])) == pytest.approx(0.5)  # one of two dimensions is shared


def test_spaces_have_the_rank_of_what_spans_them():
    assert subspace(torch.cat([AXES[:, :2], 2 * AXES[:, :1]], dim=1)).shape == (6, 2)


def test_random_spaces_overlap_by_chance():
    generator = torch.Generator().manual_seed(0)
    pairs = [[subspace(torch.randn(40, n, generator=generator)) for n in (4, 10)] for _ in range(200)]
    mean = sum(overlap(a, b) for a, b in pairs) / 200
    assert chance_overlap(*pairs[0]) == 0.25
    assert mean == pytest.approx(0.25, abs=0.02)


def test_a_planted_reader_reads_what_the_writer_wrote():
    heads = random_heads(n_layers=2, n_heads=2, d_model=64, d_head=8, seed=0)
    changed = with_planted_composition(heads, "k", (0, 0), (1, 1), seed=0)
    keys = read_space(qk_circuit(changed, 1, 1).transposed)
    assert overlap(written_space(ov_circuit(changed, 0, (0,))), keys) == pytest.approx(1.0)
    assert overlap(written_space(ov_circuit(changed, 0, (1,))), keys) < 0.35  # chance: 1/8
    assert overlap(written_space(ov_circuit(changed, 0, (0,))), read_space(qk_circuit(changed, 1, 1))) < 0.35


def test_clearing_is_an_eigenvalue_of_minus_one():
    basis = torch.linalg.qr(torch.randn(10, 3, generator=torch.Generator().manual_seed(1))).Q
    eraser = Factored(basis, -basis.T)
    assert cleared_dimensions(eraser) == 3
    x = basis @ torch.ones(3)
    torch.testing.assert_close(x + x @ eraser.dense(), torch.zeros(10), atol=1e-6, rtol=0)
    assert cleared_dimensions(Factored(basis, -0.5 * basis.T)) == 0
    assert cleared_dimensions(Factored(basis, basis.T)) == 0
