import pytest
import torch
from scipy.optimize import nnls

from sae_toolkit.saes.coders import LinearTopK, MatchingPursuit, NonnegativeLasso, RefittedTopK


@pytest.fixture(scope="module")
def features():
    """256 unit vectors in 64 dimensions."""
    rows = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.fixture
def problem(features):
    """200 samples of 4 features out of 256 with coefficients in [.5, 1.5]."""
    g = torch.Generator().manual_seed(11)
    chosen = torch.rand(200, 256, generator=g).argsort(1)[:, :4]
    truth = torch.zeros(200, 256).scatter(1, chosen, 0.5 + torch.rand(200, 4, generator=g))
    return truth, truth @ features


def test_linear_topk_by_hand():
    x = torch.tensor([[3.0, 2.0, -1.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]])
    latents = LinearTopK(2).encode(x, torch.eye(3)).to_dense()
    assert latents.tolist() == [[3, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_pursuit_in_an_orthogonal_dictionary_is_exact():
    g = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(16, 16, generator=g)).Q
    truth = torch.rand(50, 16, generator=g) * (torch.rand(50, 16, generator=g) < 0.3)
    assert torch.allclose(MatchingPursuit(16).encode(truth @ directions, directions).to_dense(), truth, atol=1e-6)


def test_pursuit_finds_sparse_codes_and_stops_when_nothing_is_left(features, problem):
    truth, x = problem
    latents = MatchingPursuit(12).encode(x, features).to_dense()
    exact = torch.isclose(latents, truth, atol=1e-4).all(1)
    assert exact.float().mean() > 0.97  # measured apart from this code: 1.00 for k <= 8


def test_pursuit_refits_by_least_squares(features, problem):
    _, x = problem
    latents = MatchingPursuit(3).encode(x, features).to_dense()
    for row in range(10):
        support = latents[row].nonzero().squeeze(1)
        _, residual = nnls(features[support].double().T.numpy(), x[row].double().numpy())
        assert (x[row] - latents[row] @ features).norm().item() == pytest.approx(residual, abs=1e-5)


def test_refitted_topk_keeps_the_choice_and_solves_for_the_weights(features, problem):
    _, x = problem
    chosen = LinearTopK(3).encode(x, features).to_dense() > 0
    latents = RefittedTopK(3).encode(x, features).to_dense()
    assert (latents[~chosen] == 0).all()
    for row in range(10):
        support = chosen[row].nonzero().squeeze(1)
        free = torch.linalg.lstsq(features[support].double().T, x[row].double()).solution
        if (free >= 0).all():
            assert torch.allclose(latents[row][support].double(), free, atol=1e-5)


def test_lasso_meets_its_optimality_conditions(features, problem):
    _, x = problem
    z = NonnegativeLasso(0.1, n_iterations=3000).encode(x[:20].double(), features.double()).to_dense()
    slope = (x[:20].double() - z @ features.double()) @ features.double().T
    assert (slope[z > 0] - 0.1).abs().max() < 1e-4
    assert slope[z == 0].max() < 0.1 + 1e-4


@pytest.mark.parametrize("coder", [LinearTopK(3), RefittedTopK(3), MatchingPursuit(3), NonnegativeLasso(0.1)])
def test_zero_vectors_zero_rows_duplicates_and_row_independence(features, problem, coder):
    _, x = problem
    x = torch.cat([torch.zeros(1, 64), x[:9]])
    directions = torch.cat([features[:30], features[:30], torch.zeros(2, 64)])
    latents = coder.encode(x, directions).to_dense()
    assert latents.isfinite().all()
    assert latents.min() >= 0
    assert latents[0].count_nonzero() == 0
    assert latents[:, 60:].count_nonzero() == 0
    for row in range(10):
        assert torch.allclose(coder.encode(x[row : row + 1], directions).to_dense()[0], latents[row], atol=1e-4)


def test_impossible_settings_are_refused():
    for build in (lambda: LinearTopK(0), lambda: MatchingPursuit(-1), lambda: NonnegativeLasso(0.0)):
        with pytest.raises(ValueError, match="must be above 0"):
            build()


def test_more_atoms_asked_than_there_are(features):
    latents = MatchingPursuit(500).encode(features[:5], features[:10]).to_dense()
    assert torch.allclose(latents, torch.eye(10)[:5], atol=1e-5)
