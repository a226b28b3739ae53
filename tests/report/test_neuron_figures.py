import re

import pytest
import torch

from sae_toolkit.metrics import BasisPrivilege
from sae_toolkit.report import neuron_stacks, neuron_stacks_panel, privilege_panel
from sae_toolkit.report.neuron_stacks import NAMED, colour_of
from sae_toolkit.report.style import SENTINEL


def privilege(kurtosis: float) -> BasisPrivilege:
    return BasisPrivilege(kurtosis=kurtosis, rotated=torch.linspace(-1, 1, 9).double(), n_neurons=4)


def test_every_piece_that_counts_is_drawn_in_the_colour_of_its_feature():
    svg = neuron_stacks({"p = 1": torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])})
    pieces = [len(re.findall(rf"<path [^>]*fill: var\(--series-{i}\)", svg)) for i in (1, 2, 3)]
    assert pieces == [2, 2, 2]  # each once in a bar and once in the legend


def test_features_beyond_the_named_ones_share_a_colour():
    assert colour_of(NAMED) == colour_of(NAMED + 7) == SENTINEL["floor"]
    svg = neuron_stacks({"p = 1": torch.eye(3, 20)})
    assert f"features {NAMED + 1} to 20" in svg


@pytest.mark.parametrize("n", [1, 4, 6])
def test_any_number_of_models_is_drawn(n):
    svg = neuron_stacks({f"model {i}": torch.eye(2, 3) for i in range(n)})
    assert all(f"model {i}" in svg for i in range(n))


def test_a_model_without_neurons_at_work_is_drawn():
    assert "idle" in neuron_stacks({"idle": torch.zeros(2, 3)})


def test_nothing_to_draw_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no model given"):
        neuron_stacks({})
    with pytest.raises(ValueError, match="no model given"):
        privilege_panel({})


def test_captions_say_how_to_read_the_figure():
    panels = [neuron_stacks_panel({"m": torch.eye(2, 3)}), privilege_panel({"ReLU": {1.0: privilege(2.0)}})]
    assert all(len(panel.caption) > 150 for panel in panels)


def test_each_kind_has_its_own_null():
    svg = privilege_panel({"ReLU": {1.0: privilege(2.0), 0.1: privilege(3.0)}, "linear": {1.0: privilege(0.0)}}).svg
    assert all(f">{name}<" in svg for name in ("ReLU", "ReLU, rotated", "linear", "linear, rotated"))
