"""From a matplotlib `Figure` to an SVG that sits inside a page: deterministic, themed, no links, no global state."""

import hashlib
import io
import re
import warnings
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from sae_toolkit.report.style import SENTINEL

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

P = ParamSpec("P")

WIDE, HALF = 9.6, 4.7
"""Inches: as wide as the page, or two beside each other at the same size of text."""


def drawn_as_svg(build: Callable[P, "matplotlib.figure.Figure"]) -> Callable[P, str]:
    """Makes a function that builds a figure return its SVG, whatever the user's matplotlib settings are."""

    @wraps(build)
    def draw(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib as mpl  # noqa: PLC0415  (slow import)

        with mpl.rc_context(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has the glyph
            mpl.rcdefaults()
            mpl.rcParams.update(settings())
            return to_svg(build(*args, **kwargs))

    return draw


def settings() -> dict[Any, Any]:
    """Matplotlib settings of every figure; names of SAEs are text, never TeX."""
    ink, muted, grid = SENTINEL["ink"], SENTINEL["muted"], SENTINEL["grid"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "sae_toolkit",
        "text.parse_math": False,
        "font.sans-serif": ["DejaVu Sans"],  # what text is measured with; the whole list would go into every label
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.labelsize": 8.5,
        "axes.labelcolor": muted,
        "axes.edgecolor": grid,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.formatter.use_mathtext": False,
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "xtick.color": grid,
        "ytick.color": grid,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "text.color": ink,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.5,
        "figure.constrained_layout.use": True,
    }


def to_svg(figure: "matplotlib.figure.Figure") -> str:
    """Only the `<svg>` element: no date, no namespaces to fetch, ids that no other figure of the page has."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, body = text.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None
    body = re.sub(r' style="image-rendering:[^"]*"', "", body)
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), body)  # 1/100 point is enough
    for name, sentinel in SENTINEL.items():
        body = body.replace(sentinel, f"var(--{name})")
    return f"<svg {view_box[0]}>{with_own_ids(with_frames(body))}".strip()


def frame_id(index: int) -> str:
    """The `gid` of what belongs to one picture of a step-through figure; several artists may share it."""
    return f"frame-{index}"


def with_frames(body: str) -> str:
    """Marks the groups of each picture for the page's slider; without it only the last picture is visible."""
    last = max((int(index) for index in re.findall(r' id="frame-(\d+)"', body)), default=0)

    def mark(match: re.Match[str]) -> str:
        hidden = "" if int(match[1]) == last else ' display="none"'
        return f' data-frame="{match[1]}"{hidden}'

    return re.sub(r' id="frame-(\d+)"', mark, body)


def with_own_ids(body: str) -> str:
    """Keeps the ids that something refers to, under a prefix made of the drawing itself; drops the others."""
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    prefix = "f" + hashlib.sha256(body.encode()).hexdigest()[:8]

    def own(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in referred else ""

    body = re.sub(r' id="([^"]*)"', own, body)
    return re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", body)


def short(name: str, length: int = 26) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def small_multiples(n: int, *, height: float) -> "tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]":
    """`n` plots that share their axes, up to three beside each other; a single one is half as wide as the page."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (slow import)

    columns = columns_for(n)
    rows = -(-n // columns)
    figure = Figure(figsize=(WIDE if columns > 1 else HALF, height * rows + 0.3))
    space(figure, wspace=0.05, hspace=0.05)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    for unused in axes[n:]:
        unused.remove()
    for axis in axes[:n]:
        axis.tick_params(labelbottom=True)
    return figure, axes[:n]


def space(
    figure: "matplotlib.figure.Figure",
    *,
    wspace: float,
    hspace: float = 0.02,
    rect: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> None:
    """Room between plots, as a share of their size, and the part of the figure to fill (x, y, width, height)."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415  (slow import)

    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(wspace=wspace, hspace=hspace, rect=rect)


def columns_for(n: int) -> int:
    """1, 2 or 3 plots beside each other; four make a square."""
    return 2 if n == 4 else min(n, 3)
