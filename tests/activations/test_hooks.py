import pytest
import torch
from torch import nn

from sae_toolkit.activations.hooks import KINDS, Place, Tap, check_hooks, hook_names, parse_hook

ALL_OF_TWO = hook_names(2)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blocks.0.hook_resid_pre", Place(0, "hook_resid_pre")),
        ("blocks.12.hook_resid_mid", Place(12, "hook_resid_mid")),
        ("blocks.3.mlp.hook_post", Place(3, "mlp.hook_post")),
    ],
)
def test_a_name_says_layer_and_kind(name, place):
    assert parse_hook(name) == place
    assert place.beside(place.kind) == name


def test_depth_sorts_names_in_the_order_of_the_computation():
    assert sorted(reversed(ALL_OF_TWO), key=lambda name: parse_hook(name).depth) == ALL_OF_TWO
    assert len(ALL_OF_TWO) == 2 * len(KINDS) == 12


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("blocks.1.hook_resid_pst", "blocks.1.hook_resid_post"),
        ("blocks.7.mlp_out", "blocks.7.hook_mlp_out"),
        ("blocks.2.mlp_hook_post", "blocks.2.mlp.hook_post"),
        ("block.1.hook_resid_pre", "blocks.1.hook_resid_pre"),
        ("hook_resid_pre", "blocks.0.hook_resid_pre"),
        ("blocks.01.hook_resid_pre", "blocks.1.hook_resid_pre"),
        ("blocks.1.hook_resid_pre.hook", "blocks.1.hook_resid_pre"),
        ("blocks.-1.hook_resid_pre", "blocks.1.hook_resid_pre"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"Did you mean '{nearest}'"):
        parse_hook(name)


def test_a_layer_that_does_not_exist_is_answered_with_the_range():
    with pytest.raises(ValueError, match=r"n_layers=2.*from 0 to 1"):
        check_hooks(["blocks.2.hook_resid_pre"], ALL_OF_TWO, 2)


def test_a_place_that_the_architecture_lacks_is_answered_with_those_it_has():
    with pytest.raises(ValueError, match=r"no such place.*\['hook_resid_pre'\]"):
        check_hooks(["blocks.1.hook_resid_mid"], ["blocks.1.hook_resid_pre"], 2)


def test_names_given_twice_are_refused():
    with pytest.raises(ValueError, match="more than once"):
        check_hooks(["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.0.hook_resid_pre"], ALL_OF_TWO, 2)


def test_names_that_exist_pass():
    assert check_hooks(["blocks.1.mlp.hook_post", "blocks.0.hook_resid_mid"], ALL_OF_TWO, 2) is None


class Adds(nn.Module):
    """Gives hidden_states + 1, alone or as the first of a tuple."""

    def __init__(self, as_tuple=False):
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, hidden_states, other=None):
        return (hidden_states + 1, "rest") if self.as_tuple else hidden_states + 1


TEN = torch.full((2, 3), 10.0)


@pytest.mark.parametrize("call", [lambda m: m(TEN), lambda m: m(TEN, "other"), lambda m: m(hidden_states=TEN, other=1)])
def test_an_input_is_read_and_written_however_it_is_given(call):
    module, seen = Adds(), []
    reader = Tap(module, "in").attach(seen.append)
    assert torch.equal(call(module), TEN + 1)
    reader.remove()
    writer = Tap(module, "in").attach(lambda x: 2 * x)
    assert torch.equal(call(module), 2 * TEN + 1)
    writer.remove()
    assert torch.equal(call(module), TEN + 1)
    assert len(seen) == 1
    assert torch.equal(seen[0], TEN)


def test_an_output_is_read_and_written():
    module, seen = Adds(), []
    handles = [Tap(module, "out").attach(seen.append), Tap(module, "out").attach(lambda x: 2 * x)]
    assert torch.equal(module(TEN), 2 * (TEN + 1))
    assert torch.equal(seen[0], TEN + 1)
    for handle in handles:
        handle.remove()
    assert torch.equal(module(TEN), TEN + 1)


def test_of_a_tuple_only_the_first_is_read_and_written():
    module, seen = Adds(as_tuple=True), []
    Tap(module, "out").attach(seen.append)
    Tap(module, "out").attach(lambda x: 2 * x)
    out, rest = module(TEN)
    assert torch.equal(out, 2 * (TEN + 1))
    assert rest == "rest"
    assert torch.equal(seen[0], TEN + 1)


def test_a_module_called_without_activations_is_refused():
    module = Adds()
    Tap(module, "in").attach(lambda x: x)
    with pytest.raises(ValueError, match="Adds is not given its activations"):
        module("text")
