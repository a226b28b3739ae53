"""How close n random directions come, between the Welch bound and what almost-orthogonality allows."""

from collections.abc import Sequence

from sae_toolkit.ground_truth.directions import random_directions, welch_bound
from sae_toolkit.metrics.packing_bounds import almost_orthogonal_count, packing, random_coherence_upper
from sae_toolkit.report.line_chart import Line, line_chart_panel
from sae_toolkit.report.report import FigurePanel

CAPTION = (
    "Largest |cosine| between any two of n random unit directions. No n directions can do better than the Welch bound; "
    "random ones stay below sqrt(2 ln(n^2/2) / d). The third line reads the Johnson-Lindenstrauss count backwards: "
    "with all |cosines| below the value on the left, exp(eps^2 d / 4) directions fit at least. 'Exponentially many' "
    "needs its angle: few fit at small ones."
)


def packing_panel(d: int, counts: Sequence[int], *, seed: int) -> FigurePanel:
    """Measured for each number of directions in `counts` (each above d), with the three curves of theory."""
    too_few = [n for n in counts if n <= d]
    if too_few or not counts:
        raise ValueError(f"packing_panel: counts={list(counts)} given with d={d}. Give numbers above d.")
    measured = [packing(random_directions(n, d, seed=seed)).largest for n in counts]
    levels = [level / 100 for level in range(5, 100) if counts[0] <= almost_orthogonal_count(level / 100, d)]
    within = [level for level in levels if almost_orthogonal_count(level, d) <= counts[-1]]
    theory = [
        Line(name="Welch bound", x=counts, y=[welch_bound(n, d) for n in counts]),
        Line(name="upper estimate", x=counts, y=[random_coherence_upper(n, d) for n in counts]),
        Line(name="exp(eps^2 d / 4)", x=[almost_orthogonal_count(eps, d) for eps in within], y=within),
    ]
    lines = [Line(name="random directions", x=counts, y=measured)]
    title = f"How many directions fit into {d} dimensions"
    return line_chart_panel(
        title, CAPTION, lines, x_label="directions n", y_label="largest |cosine|", theory=theory, log_x=True
    )
