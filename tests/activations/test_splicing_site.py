"""One site of a language model: what is spliced in there acts there."""

from pathlib import Path

import pytest
import torch
from fake_splicing import FakeSplicingSource
from toy import ToySource

from sae_toolkit.activations.sites import SiteSource
from sae_toolkit.activations.source import ActivationSource
from sae_toolkit.activations.splicing_site import SplicingSiteSource, site_of


def small_source(folder: Path) -> ActivationSource:
    """For the contract tests."""
    del folder
    return SplicingSiteSource(FakeSplicingSource(), "late")


@pytest.mark.parametrize(("site", "width"), [("early", 6), ("late", 4)])
def test_a_replacement_sees_the_activations_of_its_site(site: str, width: int) -> None:
    whole, seen = FakeSplicingSource(), []

    def keep(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    chunks = list(SplicingSiteSource(whole, site).losses_with({"same": keep}, n_tokens=80))
    held_out = torch.cat([b.activations for b in SplicingSiteSource(whole, site).stream(64, seed=0, split="eval")])
    assert torch.cat(seen).shape == (80, width)
    torch.testing.assert_close(torch.cat(seen), held_out[:80])
    assert all(torch.equal(chunk["same"].nll, chunk["clean"].nll) for chunk in chunks)


def test_a_replacement_acts_at_its_site_alone() -> None:
    whole = FakeSplicingSource()
    for site in ("early", "late"):
        (ours,) = SplicingSiteSource(whole, site).losses_with({"zero": torch.zeros_like}, n_tokens=8)
        (theirs,) = whole.losses_with({"zero": torch.zeros_like}, n_tokens=8, site=site)
        assert torch.equal(ours["zero"].nll, theirs["zero"].nll)
    (early,) = whole.losses_with({"half": lambda x: x / 2}, n_tokens=8, site="early")
    (late,) = whole.losses_with({"half": lambda x: x / 2}, n_tokens=8, site="late")
    assert not torch.equal(early["half"].nll, late["half"].nll)


def test_a_site_of_a_language_model_can_still_be_spliced() -> None:
    found = site_of(FakeSplicingSource(), "early")
    assert isinstance(found, SplicingSiteSource)
    assert found.d_in == 6


def test_a_site_of_anything_else_cannot() -> None:
    class TwoSites(ToySource):
        @property
        def sites(self) -> dict[str, int]:
            return {"a": 3, "b": 5}

    found = site_of(TwoSites(), "b")
    assert type(found) is SiteSource
    assert found.d_in == 5


def test_the_only_site_is_the_source_itself() -> None:
    one = FakeSplicingSource(("late",))
    assert site_of(one, "late") is one
    assert site_of(one, None) is one
