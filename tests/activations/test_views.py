"""One world seen at several sites."""

from pathlib import Path

import pytest
import torch
from toy import gaussian

from sae_toolkit.activations import ViewsSource
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.ground_truth import World
from sae_toolkit.ground_truth.firing import IndependentFiring
from sae_toolkit.ground_truth.magnitudes import RectifiedNormalMagnitudes
from sae_toolkit.ground_truth.probabilities import uniform_probabilities


def world(n_features: int = 6, l0: float = 2.0) -> World:
    return World(
        directions=torch.eye(n_features),
        firing=IndependentFiring(probabilities=uniform_probabilities(n_features, expected_l0=l0)),
        magnitudes=RectifiedNormalMagnitudes.same_for_all(n_features, mean=1.0, std=0.25),
    )


def two_views() -> ViewsSource:
    return ViewsSource(world(), {"early": gaussian(6, 3), "late": gaussian(6, 4, seed=1)})


def small_source(folder: Path) -> ActivationSource:
    """For the contract tests: one site, as those know no others."""
    del folder
    return ViewsSource(world(40, 12.0), {"early": gaussian(40, 3)})  # samples without any feature would all be equal


def test_each_site_shows_the_same_features_in_its_own_directions() -> None:
    source = two_views()
    batch = next(source.stream(50, seed=0, split="train"))
    assert batch.coefficients is not None
    truth = batch.coefficients.to_dense()
    for site in ("early", "late"):
        torch.testing.assert_close(batch.activations[:, source.columns(site)], truth @ source.directions[site])


def test_several_neighbouring_sites_are_one_slice() -> None:
    source = ViewsSource(world(), {"a": gaussian(6, 2), "b": gaussian(6, 3), "c": gaussian(6, 4)})
    assert source.columns(("a", "b")) == slice(0, 5)
    assert source.columns(("b", "c")) == slice(2, 9)
    for wrong in (("a", "c"), ("b", "a"), ()):
        with pytest.raises(ValueError, match="reads \\('a', 'b', 'c'\\)"):
            source.columns(wrong)


def test_other_directions_are_another_source() -> None:
    first, second = two_views(), ViewsSource(world(), {"early": gaussian(6, 3), "late": gaussian(6, 4, seed=2)})
    assert first.describe()["directions_sha256"] != second.describe()["directions_sha256"]
    state = first.stream(4, seed=0, split="train").state_dict()
    with pytest.raises(ValueError, match="directions_sha256"):
        second.stream(4, seed=0, split="train").load_state_dict(state)


@pytest.mark.parametrize("rows", [torch.zeros(5, 3), torch.full((6, 3), float("nan"))])
def test_directions_that_do_not_fit_are_refused(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="the world has 6 features"):
        ViewsSource(world(), {"early": rows})


def test_no_site_is_refused() -> None:
    with pytest.raises(ValueError, match="no site given"):
        ViewsSource(world(), {})
