from math import isnan, log

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp

from sae_toolkit.ground_truth import random_directions
from sae_toolkit.metrics.compressed_sensing import (
    basis_pursuit,
    code_recovery,
    guaranteed_support_size,
    half_way,
    lasso,
    measurements_at_transition,
    measurements_needed,
    nonnegative_least_squares,
    recovery_rates,
    sparse_codes,
    support_size_at_transition,
)
from sae_toolkit.metrics.packing_bounds import packing

N, D = 256, 64
DIRECTIONS = random_directions(N, D, seed=0)


@pytest.mark.parametrize(
    ("k", "pursuit", "nnls_rate", "top_k"),
    [(2, 1.0, 1.0, 0.88), (4, 1.0, 1.0, 0.73), (8, 1.0, 1.0, 0.61), (16, 0.66, 0.98, 0.50), (20, 0.32, 0.80, None),
     (28, 0.0, 0.10, None)],
)  # fmt: skip
def test_rates_of_256_features_in_64_dimensions(k, pursuit, nnls_rate, top_k):
    found = code_recovery(DIRECTIONS, k, n_samples=80, seed=0)
    assert float(found.pursuit.mean()) == pytest.approx(pursuit, abs=0.13)  # .1, and 80 samples are sure to .05
    assert float(found.nonnegative_least_squares.mean()) == pytest.approx(nnls_rate, abs=0.13)
    if top_k is not None:
        assert float(found.linear_top_k.mean()) == pytest.approx(top_k, abs=0.05)


def test_basis_pursuit_fails_where_the_theory_says():
    # the transition lies at k = 23.4; its width is a few k
    assert support_size_at_transition(N, D) == pytest.approx(23.4, abs=0.1)
    assert float(code_recovery(DIRECTIONS, 17, n_samples=40, seed=0).basis_pursuit.mean()) > 0.9
    assert float(code_recovery(DIRECTIONS, 30, n_samples=40, seed=0).basis_pursuit.mean()) < 0.2


def test_pursuit_agrees_with_scikit_learn_where_codes_are_easy():
    codes = sparse_codes(30, N, 5, seed=1)
    x = codes.numpy() @ DIRECTIONS.double().numpy()
    signed = orthogonal_mp(DIRECTIONS.double().numpy().T, x.T, n_nonzero_coefs=5).T
    assert ((signed != 0) == (codes.numpy() != 0)).all()
    assert code_recovery(DIRECTIONS, 5, n_samples=30, seed=1).pursuit.tolist() == [1.0] * 30


def test_one_solution_per_row():
    codes = sparse_codes(4, N, 6, seed=0)
    x = codes @ DIRECTIONS.double()
    for row in range(4):
        expected, _ = nnls(DIRECTIONS.double().numpy().T, x[row].numpy())
        np.testing.assert_allclose(nonnegative_least_squares(x, DIRECTIONS.double())[row].numpy(), expected)
    torch.testing.assert_close(basis_pursuit(x, DIRECTIONS.double()), codes, atol=1e-6, rtol=0)


def test_the_end_of_the_lasso_path_is_the_linear_program():
    x = sparse_codes(12, N, 26, seed=2) @ DIRECTIONS.double()  # beyond the transition, where most codes are not found
    torch.testing.assert_close(lasso(x, DIRECTIONS.double()), basis_pursuit(x, DIRECTIONS.double()), atol=1e-4, rtol=0)


def test_half_way_lies_between_two_points():
    assert half_way([1, 2, 4], [1.0, 0.75, 0.25]) == pytest.approx(3.0)
    assert isnan(half_way([1, 2], [1.0, 0.75]))


def test_orthogonal_directions_lose_nothing():
    found = code_recovery(torch.eye(8), 5, n_samples=20, seed=0)
    assert all(float(rate.mean()) == 1.0 for rate in found)


def test_codes_have_their_support_and_range():
    codes = sparse_codes(500, 20, 3, seed=0)
    assert ((codes > 0).sum(dim=1) == 3).all()
    active = codes[codes > 0]
    assert 0.1 <= float(active.min()) < 0.11
    assert 0.99 < float(active.max()) <= 1.0
    # each of 20 features is active in 15 % of the samples: 75 of 500 +- 4 standard deviations of 8
    assert ((codes > 0).sum(dim=0) - 75).abs().max() < 32


def test_the_guarantee_by_coherence_is_next_to_nothing():
    assert guaranteed_support_size(0.5) == 1.5
    assert guaranteed_support_size(packing(DIRECTIONS).largest) == pytest.approx(1.48, abs=0.05)


def test_the_known_asymptotic_form():
    assert measurements_needed(256, 10) == pytest.approx(20 * log(25.6))


def test_the_transition_in_its_limits():
    # no compression is possible without zeros; and as k / n -> 0 the exact form approaches 2 k ln(n / k)
    assert measurements_at_transition(100, 100) == pytest.approx(100, rel=1e-4)
    ratios = [measurements_at_transition(n, 1) / measurements_needed(n, 1) for n in (10**2, 10**4, 10**8)]
    assert ratios[0] < ratios[1] < ratios[2] < 1


def test_the_transition_is_that_of_donoho_and_tanner():
    # Donoho & Tanner 2009: the weak threshold of non-negative codes at d / n = 1/2 is k / d = .558
    assert support_size_at_transition(1000, 500) / 500 == pytest.approx(0.558, abs=0.005)


@pytest.mark.parametrize("k", [0, 9])
def test_an_impossible_support_is_an_error(k):
    with pytest.raises(ValueError, match=f"support_size={k}"):
        sparse_codes(1, 8, k, seed=0)


def test_no_compression_no_transition():
    with pytest.raises(ValueError, match="d=8"):
        support_size_at_transition(8, 8)


def test_solvers_can_be_chosen():
    directions = random_directions(24, 12, seed=0)
    every = recovery_rates(directions, 2, n_samples=10, seed=0)
    one = recovery_rates(directions, 2, n_samples=10, seed=0, solvers=("pursuit",))
    assert one == {"recovered_by_pursuit": every["recovered_by_pursuit"]}
    with pytest.raises(ValueError, match="choose among pursuit"):
        recovery_rates(directions, 2, n_samples=10, seed=0, solvers=("luck",))
