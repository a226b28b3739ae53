"""What `train` refuses before anything is computed, and what it gives back."""

from typing import Any

import pytest
from toy import ToySource, small_config

from sae_toolkit import LearningConfig, TopKSAE, TrainConfig, train

CONFIG = TrainConfig(n_samples=70, batch_size=32, preparation_samples=64)


def test_samples_are_rounded_up_to_whole_batches() -> None:
    result = train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG)
    assert (result.n_steps, result.n_samples) == (3, 96)
    assert result.seconds > 0


def test_excluded_samples_are_counted_by_reason() -> None:
    """Two per batch of the training stream; the preparation streams do not count."""
    assert train(TopKSAE(small_config(TopKSAE)), ToySource(), CONFIG).excluded == {"toy reason": 6}


def test_a_single_sae_is_called_sae() -> None:
    sae = TopKSAE(small_config(TopKSAE))
    assert train(sae, ToySource(), CONFIG).saes == {"sae": sae}


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", ".", ".."])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an SAE"):
        train({name: TopKSAE(small_config(TopKSAE))}, ToySource(), CONFIG)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"saes": {}}, "no SAE given"),
        ({"learning": {"wide": LearningConfig()}}, "learning given for 'wide', but the SAEs are narrow"),
    ],
)
def test_other_impossible_calls_are_refused(arguments: dict[str, Any], message: str) -> None:
    saes = arguments.pop("saes", {"narrow": TopKSAE(small_config(TopKSAE))})
    with pytest.raises(ValueError, match=message):
        train(saes, ToySource(), CONFIG, **arguments)


def test_the_caller_keeps_its_configs() -> None:
    learning = LearningConfig(learning_rate=0.02)
    sae_config = small_config(TopKSAE)
    train({"sae": TopKSAE(sae_config)}, ToySource(), CONFIG, learning={"sae": learning})
    assert learning == LearningConfig(learning_rate=0.02)
    assert sae_config == small_config(TopKSAE)
