import math

import pytest
import torch

from sae_toolkit.ground_truth import MarkovChain, dirichlet_chain

TWO = MarkovChain(torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double(), torch.tensor([2 / 3, 1 / 3]).double())


def test_entropy_and_loss_by_hand():
    assert TWO.entropy == pytest.approx(2 / 3 * math.log(2))  # the second token is always followed by the first
    uniform = torch.zeros(2, 2)
    assert float(TWO.expected_loss(uniform)) == pytest.approx(math.log(2))
    assert TWO.kl(uniform) == pytest.approx(math.log(2) / 3)
    assert TWO.kl(torch.tensor([[3.0, 3.0], [60.0, 0.0]])) == pytest.approx(0.0, abs=1e-9)


def test_the_correlation_ignores_constants_of_rows():
    chain = dirichlet_chain(8, 0.5, seed=0)
    log_p = chain.transitions.clamp(min=1e-30).log()
    assert chain.correlation(
        2 * log_p + torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    ) == pytest.approx(1)
    assert chain.correlation(-log_p) == pytest.approx(-1)


def test_the_chain_is_one_and_its_stationary_distribution_stays():
    chain = dirichlet_chain(32, 0.3, seed=0)
    torch.testing.assert_close(chain.transitions.sum(1), torch.ones(32).double())
    torch.testing.assert_close(chain.stationary @ chain.transitions, chain.stationary)
    assert float(chain.stationary.sum()) == pytest.approx(1)
    # the mean entropy of a symmetric Dirichlet row: psi(n a + 1) - psi(a + 1)
    from scipy.special import digamma  # noqa: PLC0415

    rows = -torch.special.xlogy(chain.transitions, chain.transitions).sum(1)
    assert float(rows.mean()) == pytest.approx(
        digamma(32 * 0.3 + 1) - digamma(1.3), abs=4 * float(rows.std()) / 32**0.5
    )
    assert not torch.equal(chain.transitions, dirichlet_chain(32, 0.3, seed=1).transitions)


def test_impossible_chains_are_refused():
    with pytest.raises(ValueError, match="at least 2 tokens"):
        dirichlet_chain(1, 0.3, seed=0)
