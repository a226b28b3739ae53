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


def test_with_a_target_a_replacement_reads_at_one_site_and_acts_at_the_other() -> None:
    whole, seen = FakeSplicingSource(), []
    there = SplicingSiteSource(whole, "early", target="late")

    def perfect(early: torch.Tensor) -> torch.Tensor:
        seen.append(early)
        return whole.late(early)

    chunks = list(there.losses_with({"perfect": perfect, "nothing": lambda x: x[:, :4] * 0}, n_tokens=80))
    assert torch.cat(seen).shape == (80, 6)
    assert all(torch.equal(chunk["perfect"].nll, chunk["clean"].nll) for chunk in chunks)
    zeroed = list(there.written.losses_with({"zero": torch.zeros_like}, n_tokens=80))
    assert all(torch.equal(a["nothing"].nll, b["zero"].nll) for a, b in zip(chunks, zeroed, strict=True))


def test_batches_carry_the_target_beside_what_is_read() -> None:
    there = SplicingSiteSource(FakeSplicingSource(), "early", target="late")
    both = next(FakeSplicingSource().stream(16, seed=0, split="train")).activations
    batch = next(there.stream(16, seed=0, split="train"))
    assert batch.targets is not None
    assert torch.equal(torch.cat([batch.activations, batch.targets], dim=1), both)
    assert torch.equal(batch.wanted(), batch.targets)
    assert there.describe()["target"] == "late"
    assert there.d_in == 6


def test_several_sites_are_read_together_but_not_spliced() -> None:
    there = site_of(FakeSplicingSource(), ("early", "late"), target="late")
    assert there.sites == {"early": 6, "late": 4}
    assert there.d_in == 10
    with pytest.raises(ValueError, match="at one site only"):
        next(there.losses_with({}, n_tokens=8))  # type: ignore[attr-defined]
