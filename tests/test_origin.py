"""Where a saved SAE comes from, and how origins of one recipe are told apart."""

from dataclasses import replace
from pathlib import Path

import pytest

from sae_toolkit.origin import Origin, labels_of, saved_saes
from sae_toolkit.recipe import load_recipe


def test_labels_name_the_fields_that_differ() -> None:
    recipe = load_recipe("toy_superposition")
    config = recipe.config(smoke=True)
    assert labels_of([Origin(recipe, config)]) == ["toy_superposition"]
    other = replace(config, world="B", train=replace(config.train, seed=3))
    assert labels_of([Origin(recipe, config), Origin(recipe, other)]) == [
        "toy_superposition (world A, train.seed 0)",
        "toy_superposition (world B, train.seed 3)",
    ]
    third = load_recipe("toy_hierarchy")
    assert labels_of([Origin(recipe, config), Origin(third, third.config(smoke=True))]) == [
        "toy_superposition",
        "toy_hierarchy",
    ]


def test_origins_are_the_same_where_recipe_and_config_are() -> None:
    recipe = load_recipe("toy_superposition")
    config = recipe.config(smoke=True)
    assert Origin(recipe, config).is_same(Origin(load_recipe("toy_superposition"), recipe.config(smoke=True)))
    assert not Origin(recipe, config).is_same(Origin(recipe, replace(config, world="B")))


def test_a_folder_without_an_sae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no saved SAE"):
        saved_saes([tmp_path])
