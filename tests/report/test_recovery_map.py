import re

import pytest
import torch

from sae_toolkit.metrics import Score
from sae_toolkit.report import RecoveryMap, recovery_map_panel
from sae_toolkit.report.recovery_map import place


def cell(recall, solved, crossed):
    rate = Score(value=solved, n=10, id="recovered_by_nonnegative_least_squares/v1")
    return {"recall": recall, "recovered_by_nonnegative_least_squares": rate, "unidentifiable": crossed}


CELLS = {
    (1, 16): cell(1.0, 1.0, False),
    (1, 24): cell(0.95, 0.8, False),  # recovered though least squares fails: a refutation
    (4, 16): cell(0.4, 1.0, False),
    (4, 24): cell(0.0, 0.0, True),
}


def test_cells_become_a_grid_whatever_their_order():
    found = RecoveryMap.of(8, dict(reversed(CELLS.items())))
    assert (found.support_sizes, found.n_features) == ([1, 4], [16, 24])
    assert found.recall.tolist() == [[1.0, 0.95], [0.4, 0.0]]
    assert found.solvable.tolist() == [[True, False], [True, False]]
    assert found.verdict() == {"recovered": 2, "recovered_though_unsolvable": 1, "unidentifiable": 1}


def test_the_figure_shows_every_cell_and_the_theory():
    panel = recovery_map_panel(RecoveryMap.of(8, CELLS))
    for words in ("0.95", "basis pursuit, transition", "guaranteed at the Welch bound", "unidentifiable", "n / d"):
        assert words in panel.svg
    assert len(re.findall(r">0\.40<", panel.svg)) == 1


def test_values_lie_between_the_centres():
    assert [place(v, [1, 2, 4]) for v in (1, 1.5, 3, 4, 6)] == pytest.approx([0, 0.5, 1.5, 2, 3])


def test_one_column_is_no_map():
    grid = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="at least 2 numbers, ascending"):
        RecoveryMap(d=8, n_features=[16], support_sizes=[1, 2], recall=grid, solvable=grid > 1, unidentifiable=grid > 1)
