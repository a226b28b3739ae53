import numpy as np
import pytest
import torch
from scipy.stats import kurtosis, ortho_group

from sae_toolkit.metrics.basis_privilege import basis_privilege, excess_kurtosis, random_rotation

N, D = 4000, 10
RNG = np.random.default_rng


def laplace() -> torch.Tensor:
    """Independent neurons with heavy tails (excess kurtosis 3): the neurons' basis is special."""
    return torch.from_numpy(RNG(0).laplace(size=(N, D)))


def test_independent_heavy_tails_are_privileged():
    found = basis_privilege(laplace(), seed=0)
    assert found.z > 8
    assert found.percentile == 1.0
    assert found.kurtosis == pytest.approx(3, abs=0.5)


def test_a_rotation_takes_the_privilege_away():
    rotation = torch.from_numpy(ortho_group.rvs(D, random_state=RNG(1)))
    found = basis_privilege(laplace() @ rotation, seed=0)
    assert abs(found.z) < 3
    assert 0 < found.percentile < 1


def test_gaussian_neurons_are_not_privileged():
    found = basis_privilege(torch.from_numpy(RNG(2).normal(size=(N, D))), seed=0)
    assert abs(found.z) < 3


def test_an_offset_is_no_privilege():
    x = laplace()
    assert basis_privilege(x + 5, seed=0).z == pytest.approx(basis_privilege(x, seed=0).z)


def test_neurons_that_never_vary_are_left_out():
    x = laplace()
    padded = torch.cat([x[:, :4], torch.zeros(N, 2, dtype=torch.float64), x[:, 4:]], dim=1)
    found = basis_privilege(padded, seed=0)
    assert found.n_neurons == D
    assert found.kurtosis == pytest.approx(basis_privilege(x, seed=0).kurtosis)


def test_z_and_percentile_are_those_of_the_stated_null():
    found = basis_privilege(laplace()[:500, :3], seed=3, n_rotations=40)
    null = found.rotated.numpy()
    assert len(null) == 40
    assert found.z == pytest.approx((found.kurtosis - null.mean()) / null.std(ddof=1))
    assert found.percentile == np.mean(null < found.kurtosis)


def test_the_seed_decides():
    x = laplace()[:200]
    assert torch.equal(basis_privilege(x, seed=0).rotated, basis_privilege(x, seed=0).rotated)
    assert not torch.equal(basis_privilege(x, seed=0).rotated, basis_privilege(x, seed=1).rotated)


def test_kurtosis_is_that_of_scipy():
    x = laplace()[:100]
    np.testing.assert_allclose(excess_kurtosis(x).numpy(), kurtosis(x.numpy(), axis=0))


def test_rotations_are_orthogonal_and_uniform():
    rotations = torch.stack([random_rotation(3, seed=0, index=i) for i in range(2000)])
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).double().expand(2000, 3, 3))
    # a uniform column has mean 0 and mean square 1/3 in every entry; 2000 draws are sure to about 3 / sqrt(2000) * std
    assert rotations.mean(dim=0).abs().max() < 0.05
    assert (rotations.square().mean(dim=0) - 1 / 3).abs().max() < 0.03


@pytest.mark.parametrize(("shape", "complaint"), [((4, 3), "4 samples"), ((20, 1), "1 neuron")])
def test_too_little_to_judge_is_an_error(shape, complaint):
    with pytest.raises(ValueError, match=complaint):
        basis_privilege(torch.arange(shape[0] * shape[1]).double().reshape(shape), seed=0)
