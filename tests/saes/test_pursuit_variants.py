"""Matching pursuit and orthogonal pursuit as encoders, against loops over samples and steps."""

import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor
from toy import SHIPPED, check_loss_and_gradients, toy_batch, working_sae

from sae_toolkit import MatchingPursuitSAE, OrthogonalPursuitSAE, TrainingSignals

SIGNALS = TrainingSignals(torch.arange(16) % 2 == 0, torch.tensor(1.0, dtype=torch.float64))


def greedy(sae: MatchingPursuitSAE, row: Tensor, k: int) -> Tensor:
    """What k greedy steps leave of one normalised sample; gradients flow through every coefficient."""
    residual = row - sae.b_dec
    for _ in range(k):
        scores = [float((residual @ d) / d.norm()) for d in sae.W_dec]
        best = max(range(16), key=scores.__getitem__)
        if scores[best] <= 0:
            break
        d = sae.W_dec[best]
        residual = residual - (residual @ d) / (d @ d) * d
    return residual


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("shape", [(20, 8), (4, 5, 8)], ids=["rows", "3-D"])
@pytest.mark.parametrize(("progress", "k"), [(0.25, 5), (1.0, 3)], ids=["annealing", "annealed"])
def test_matching_pursuit_is_the_paper_s_loop(shape: tuple[int, ...], progress: float, k: int) -> None:
    sae, x = working_sae(MatchingPursuitSAE, initial_k=7).double().train(), toy_batch(20).double().reshape(shape)
    sae.progress = progress
    rows = sae.normaliser.normalise(x).reshape(-1, 8)
    expected = torch.stack([greedy(sae, row, k) for row in rows]).square().mean()
    check_loss_and_gradients(sae, x, SIGNALS, expected)


def test_a_latent_chosen_twice_has_the_sum_of_its_coefficients() -> None:
    """d_0 = (1, 0), d_1 = (.6, .8), d_2 = (-1, 0), x = (2, 4), three steps.

    d_1 correlates most: 1.2 + 3.2 = 4.4, which leaves (-.64, .48). d_2 takes .64 and leaves (0, .48). d_1 takes
    .8 * .48 = .384 once more: 4.784 in all.
    """
    sae = MatchingPursuitSAE(MatchingPursuitSAE.Config(d_in=2, d_sae=3, k=3, normaliser="none")).eval()
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]))
    assert sae.encode(torch.tensor([2.0, 4.0])).tolist() == pytest.approx([0, 4.784, 0.64])


@pytest.mark.parametrize("shape", [(20, 8), (4, 5, 8)], ids=["rows", "3-D"])
def test_orthogonal_pursuit_has_the_gradient_of_its_minimum(shape: tuple[int, ...]) -> None:
    """On the support it chose, the loss is that of SciPy's non-negative least squares, and its gradient the partial."""
    sae, x = working_sae(OrthogonalPursuitSAE).double().train(), toy_batch(20).double().reshape(shape)
    rows = sae.normaliser.normalise(x).reshape(-1, 8)
    support = (sae.encode(x) != 0).reshape(-1, 16)
    assert support.sum(1).max() <= 3
    z = torch.zeros(20, 16, dtype=torch.float64)
    for i, row in enumerate((rows - sae.b_dec).detach()):
        solution, _ = nnls(sae.W_dec.detach()[support[i]].T.numpy(), row.numpy())
        z[i, support[i]] = torch.from_numpy(solution)
    check_loss_and_gradients(sae, x, SIGNALS, (rows - z @ sae.W_dec - sae.b_dec).square().mean())


@pytest.mark.parametrize("variant", [MatchingPursuitSAE, OrthogonalPursuitSAE])
def test_there_is_no_encoder_to_learn(variant: type[MatchingPursuitSAE]) -> None:
    sae = working_sae(variant)
    assert {name for name, _ in sae.named_parameters()} == {"W_dec", "b_dec"}
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert variant.__name__ in SHIPPED


@pytest.mark.parametrize("variant", [MatchingPursuitSAE, OrthogonalPursuitSAE])
def test_a_sample_at_b_dec_uses_no_latent(variant: type[MatchingPursuitSAE]) -> None:
    sae = working_sae(variant)
    x = sae.normaliser.denormalise(sae.b_dec.detach())
    z = sae.encode(x.unsqueeze(0))
    assert z.abs().max() < 1e-5
