import pytest

from sae_toolkit.report import packing_panel


def test_measured_and_theoretical_lines_are_named() -> None:
    panel = packing_panel(16, (32, 64, 128), seed=0)
    assert all(name in panel.svg for name in ("random directions", "Welch bound", "upper estimate", "eps^2 d / 4"))
    assert "16 dimensions" in panel.title


@pytest.mark.parametrize("counts", [(), (16, 32)])
def test_no_more_directions_than_dimensions_have_nothing_to_show(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="above d"):
        packing_panel(16, counts, seed=0)
