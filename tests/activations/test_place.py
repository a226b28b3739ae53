"""What a dictionary reads and predicts, as a user's words, as a view of a source, and as a saved run tells it."""

from pathlib import Path

import pytest
from fake_splicing import WIDTHS, FakeSplicingSource

from sae_toolkit.activations.place import Place, sites_and_targets
from sae_toolkit.origin import SavedSAE


@pytest.mark.parametrize(
    ("place", "words", "width"),
    [
        (Place("early"), "early", WIDTHS["early"]),
        (Place(("early", "late")), "early + late", WIDTHS["early"] + WIDTHS["late"]),
        (Place("early", "late"), "early to late", WIDTHS["early"]),
    ],
)
def test_a_place_is_named_and_seen(place: Place, words: str, width: int) -> None:
    assert str(place) == words
    batch = next(place.seen(FakeSplicingSource()).stream(5, seed=0, split="eval"))
    assert batch.activations.shape == (5, width)
    assert (batch.targets is None) == (place.target is None)


def test_places_become_what_train_is_told() -> None:
    places = {"a": Place("early"), "b": Place(("early", "late")), "c": Place("early", "late")}
    assert sites_and_targets(places) == ({"a": "early", "b": ("early", "late"), "c": "early"}, {"c": "late"})


@pytest.mark.parametrize(
    ("setup", "place"),
    [
        ({}, None),
        ({"sites": {"x": "early"}}, Place("early")),
        ({"sites": {"x": ["early", "late"]}}, Place(("early", "late"))),
        ({"sites": {"x": "early"}, "targets": {"x": "late", "y": "early"}}, Place("early", "late")),
    ],
)
def test_a_saved_run_says_where_its_saes_stood(setup: dict[str, object], place: Place | None) -> None:
    assert SavedSAE("any name", Path("run/saes/x"), {"setup": setup}).place == place
