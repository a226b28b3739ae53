import math

import pytest
import torch

from sae_toolkit.report import heat_map, heat_map_panel


def test_tables_of_any_sign_and_with_gaps_are_drawn_with_their_largest_magnitude():
    tables = {
        "a": torch.tensor([[1.0, -2.5], [math.nan, 0.0]]),
        "zeros": torch.zeros(3, 2),
        "gaps": torch.full((2, 2), math.nan),
    }
    panel = heat_map_panel("Circuits", "How to read it.", tables, row_label="verb", column_label="value")
    assert "a (2.5)" in panel.svg
    assert "zeros (0)" in panel.svg
    assert "verb" in panel.svg
    assert "orange below" in panel.caption
    assert panel == heat_map_panel("Circuits", "How to read it.", tables, row_label="verb", column_label="value")


def test_nothing_and_too_much_are_refused():
    for tables in ({}, {"wide": torch.zeros(2, 300)}):
        with pytest.raises(ValueError, match="heat_map"):
            heat_map(tables, row_label="a", column_label="b")
