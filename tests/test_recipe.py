"""Finding, loading and judging recipes."""

from dataclasses import replace
from pathlib import Path

import pytest

from sae_toolkit.config import seed_of, with_seed
from sae_toolkit.recipe import load_recipe, recipe_names


def test_the_shipped_recipes_are_found() -> None:
    assert {"toy_superposition", "toy_correlated", "toy_hierarchy", "from_arrays", "synth_sae_bench"} <= set(
        recipe_names()
    )


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean toy_superposition"):
        load_recipe("toy_superpositon")


def test_a_file_that_is_no_recipe_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("Config = SMOKE = EXPECTED = 1\n")
    with pytest.raises(ValueError, match="it lacks SMOKE_EXPECTED, main"):
        load_recipe(str(tmp_path / "mine.py"))


def test_what_a_recipe_leaves_out_is_known(tmp_path: Path) -> None:
    assert load_recipe("synth_sae_bench").leave_out == ("floor/ica",)
    assert load_recipe("toy_superposition").leave_out == ()


def test_expected_numbers_hold_for_any_seed_and_for_no_other_change() -> None:
    recipe = load_recipe("toy_superposition")
    published = recipe.config(smoke=False)
    assert recipe.expectations(with_seed(published, 7)) == recipe.module.EXPECTED
    assert recipe.expectations(recipe.config(smoke=True)) == recipe.module.SMOKE_EXPECTED
    assert recipe.expectations(replace(published, d_sae=300)) == ()


def test_the_seed_is_found_in_the_training_config() -> None:
    config = load_recipe("toy_hierarchy").config(smoke=True)
    assert seed_of(with_seed(config, 11)) == 11
    assert with_seed(config, 11).train.seed == 11
