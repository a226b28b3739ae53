import re

import matplotlib as mpl
import pytest
import torch
from polytopes import columns, digon, polygon

from sae_toolkit.report import (
    Boundary,
    Line,
    PhaseMap,
    Reference,
    dimensionality_scatter,
    dimensionality_scatter_panel,
    feature_arrows,
    feature_arrows_panel,
    gram_stacks,
    gram_stacks_panel,
    line_chart,
    line_chart_panel,
    phase_diagram,
    phase_diagram_panel,
    training_frames,
    training_frames_panel,
)
from sae_toolkit.report.gram_stacks import FULL, STOPS, interference_colour
from sae_toolkit.report.phase_diagram import extent, runs
from sae_toolkit.report.style import SENTINEL

PENTAGON = 1.16 * polygon(5).T
GROWTH = torch.stack([0.3 * PENTAGON, 0.7 * PENTAGON, PENTAGON])
GRID = torch.logspace(-2, 0, 3, dtype=torch.float64)


def phase_map(classes: list[list[int]], marked: bool = False) -> PhaseMap:
    found = torch.tensor(classes)
    crosses = found == 2 if marked else None
    return PhaseMap(name="trained", p=GRID, r=torch.logspace(-1, 1, 3).double(), classes=found, marked=crosses)


def line(**changes: object) -> Line:
    return Line(**{"name": "measured", "x": [1.0, 10.0, 100.0], "y": [1.0, 0.5, 0.1], **changes})


def panels():
    boundary = Boundary(label="closed form", p=GRID, r=GRID + 0.1)
    return [
        gram_stacks_panel({"p = 1": torch.eye(2, 5), "p = .01": PENTAGON}),
        feature_arrows_panel({"p = 1": torch.eye(2, 5), "p = .01": PENTAGON}),
        training_frames_panel({"p = .01": GROWTH}, [0, 10, 100], {"p = .01": [1.0, 0.5, 0.25]}),
        phase_diagram_panel([phase_map([[0, 0, 1], [0, 2, 2], [1, 2, 2]], marked=True)], ["a", "b", "c"], [boundary]),
        line_chart_panel("D*", "How to read it.", [line()], x_label="1/p", y_label="D*", log_x=True),
        dimensionality_scatter_panel({0.3: torch.full((9,), 0.5), 0.1: torch.tensor([0.4, 0.0])}),
    ]


def test_figures_are_deterministic_themed_and_leave_matplotlib_alone():
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        again = panels()
    assert dict(mpl.rcParams) == before
    for panel, repeated in zip(panels(), again, strict=True):
        assert panel.svg == repeated.svg
        assert "var(--muted)" in panel.svg
        assert not any(sentinel in panel.svg for sentinel in SENTINEL.values())
        assert "#000000" not in panel.svg


@pytest.mark.parametrize("panel", range(6))
def test_captions_say_how_to_read_the_figure(panel):
    found = panels()[panel]
    assert found.title
    assert found.caption.endswith(".")


def test_paths_are_short_and_numbers_in_words_are_whole():
    svg = training_frames({"a": GROWTH}, [0, 10, 100], {"a": [1.0, 0.5, 0.000417]})
    assert all(re.search(r"\.\d{3}", path) is None for path in re.findall(r' d="([^"]*)"', svg))
    assert "loss 0.000417" in svg


def frame_groups(svg: str) -> list[tuple[str, bool]]:
    return [(number, "display" in rest) for number, rest in re.findall(r'<g data-frame="(\d+)"([^>]*)>', svg)]


def test_only_the_last_picture_is_visible_without_the_slider():
    groups = frame_groups(training_frames({"a": GROWTH, "b": GROWTH}, [0, 10, 100]))
    assert {number for number, _ in groups} == {"0", "1", "2"}
    assert all(hidden == (number != "2") for number, hidden in groups)


def test_each_picture_names_its_step():
    svg = training_frames({"a": GROWTH}, [0, 10, 1500])
    assert [words in svg for words in ("step 0<", "step 10<", "step 1,500<")] == [True] * 3


def test_still_figures_have_no_pictures():
    assert frame_groups(feature_arrows({"a": PENTAGON})) == []


def test_one_picture_for_each_step():
    with pytest.raises(ValueError, match="3 snapshots for 2 steps"):
        training_frames({"a": GROWTH}, [0, 1])


def test_only_a_plane_has_arrows():
    with pytest.raises(ValueError, match="n_hidden=3"):
        feature_arrows({"a": torch.eye(3)})


def test_colours_of_more_than_six_features_repeat_in_the_legend():
    svg = feature_arrows({"a": torch.ones(2, 8)})
    assert "feature 1, 7<" in svg
    assert "feature 3<" in svg


def test_stacks_have_a_bar_for_each_feature_in_the_colour_of_its_interference():
    # a dedicated feature has interference 0, a digon of norm 1 has 1: the first colour and the middle one
    svg = gram_stacks({"a": columns(torch.ones(1, 1, dtype=torch.float64), digon())})
    first, middle = ("#" + "".join(f"{channel:02x}" for channel in stop) for stop in STOPS[:2])
    bars = svg[: svg.index("WᵀW")]
    assert bars.count(first) == 1
    assert bars.count(middle) == 2


def test_interference_beyond_the_scale_keeps_the_last_colour():
    assert interference_colour(FULL) == interference_colour(9.0) == tuple(STOPS[-1] / 255)


@pytest.mark.parametrize("n", [1, 6, 11])
def test_any_number_of_models_is_drawn(n):
    models = {f"model {i}": PENTAGON for i in range(n)}
    assert gram_stacks(models).count(">model ") == n
    assert feature_arrows(models).count(">model ") == n


def test_runs_of_equal_cells():
    assert runs([2, 2, 0, 1, 1, 1]) == [(0, 2, 2), (2, 1, 0), (3, 3, 1)]


def test_a_map_reaches_half_a_cell_beyond_its_centres():
    # log10 p from -2 to 0 in steps of 1, log10 r from -1 to 1
    assert extent(phase_map([[0] * 3] * 3)) == pytest.approx((-2.5, 0.5, -1.5, 1.5))


def test_every_class_needs_a_name():
    with pytest.raises(ValueError, match="3 classes in the maps, 2 names"):
        phase_diagram([phase_map([[0, 1, 2]] * 3)], ["a", "b"])


def test_a_map_is_even_in_its_logarithms():
    with pytest.raises(ValueError, match="evenly spaced in its logarithm"):
        PhaseMap(name="a", p=torch.linspace(0.1, 1, 3), r=GRID, classes=torch.zeros(3, 3, dtype=torch.long))


def test_boundaries_are_named():
    curves = [Boundary(label=name, p=GRID, r=GRID) for name in ("closed form", "refined")]
    svg = phase_diagram([phase_map([[0, 1, 2]] * 3)], ["a", "b", "c"], curves)
    assert ">closed form<" in svg
    assert ">refined<" in svg


def test_references_and_theory_are_named():
    svg = line_chart(
        [line()],
        x_label="x",
        y_label="y",
        references=[Reference(label="digon", y=0.5), Reference(label="here", x=3.0)],
        theory=[line(name="theory")],
        log_x=True,
        log_y=True,
    )
    assert all(f">{name}<" in svg for name in ("digon", "here", "theory", "measured"))


def test_gaps_and_bands():
    gap = line(y=[1.0, float("nan"), 0.1], low=[0.9, float("nan"), 0.0], high=[1.1, float("nan"), 0.2])
    assert line_chart([gap, line(name="other")], x_label="x", y_label="y").startswith("<svg")


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: line(y=[1.0]), r"\[1, 3\] points"),
        (lambda: line(low=[0.0, 0.0, 0.0]), "both low and high"),
        (lambda: Reference(label="r"), "not both"),
        (lambda: Reference(label="r", x=1.0, y=1.0), "not both"),
    ],
)
def test_lines_and_references_that_cannot_be_drawn(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


def test_scatter_names_the_polytopes():
    svg = dimensionality_scatter({0.3: torch.tensor([0.5, 0.4])})
    assert all(f">{name}<" in svg for name in ("digon", "pentagon", "square antiprism", "tetrahedron", "triangle"))


@pytest.mark.parametrize(
    ("draw", "arguments"),
    [
        (gram_stacks, ({},)),
        (feature_arrows, ({},)),
        (dimensionality_scatter, ({},)),
        (phase_diagram, ([], [])),
    ],
)
def test_nothing_to_draw_is_an_error_that_says_so(draw, arguments):
    with pytest.raises(ValueError, match=r"no (model|map) given"):
        draw(*arguments)


def test_no_line_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no line given"):
        line_chart([], x_label="x", y_label="y")
