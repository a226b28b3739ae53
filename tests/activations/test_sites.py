"""One site of a source that reads several."""

from pathlib import Path

import pytest
import torch
from fake_splicing import FakeSplicingSource
from toy import ToySource

from sae_toolkit.activations.sites import SiteSource
from sae_toolkit.activations.source import ActivationSource


def small_source(folder: Path) -> ActivationSource:
    """For the contract tests."""
    del folder
    return SiteSource(FakeSplicingSource(), "late")


def test_each_site_shows_its_columns() -> None:
    whole = FakeSplicingSource()
    both = next(whole.stream(16, seed=0, split="train")).activations
    for site, columns in (("early", slice(0, 6)), ("late", slice(6, 10))):
        seen = next(SiteSource(whole, site).stream(16, seed=0, split="train"))
        assert torch.equal(seen.activations, both[:, columns])


def test_what_is_known_of_the_samples_stays() -> None:
    batch = next(SiteSource(FakeSplicingSource(), "early").stream(16, seed=0, split="eval"))
    assert batch.document_ids is not None
    assert batch.document_ids.tolist() == [1] * 8 + [3] * 8  # odd documents are held out, 8 tokens each
    assert batch.excluded == {"position": 1}


def test_a_site_has_its_width_and_its_name() -> None:
    early = SiteSource(FakeSplicingSource(), "early")
    assert early.d_in == 6
    assert early.describe()["site"] == "early"


def test_an_unknown_site_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'late'"):
        SiteSource(FakeSplicingSource(), "lat")


def test_a_source_without_sites_has_one() -> None:
    toy = ToySource()
    assert toy.sites == {"activations": 8}
    assert toy.columns("activations") == slice(0, 8)
