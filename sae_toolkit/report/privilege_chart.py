"""Tails along neurons against tails along random directions, over sparsity.

After Elhage et al. 2022 (arXiv 2209.10652), "Superposition in a Privileged Basis".
"""

from collections.abc import Mapping

from sae_toolkit.metrics.basis_privilege import BasisPrivilege
from sae_toolkit.report.line_chart import Line, line_chart_panel
from sae_toolkit.report.report import FigurePanel


def privilege_panel(models: Mapping[str, Mapping[int | float, BasisPrivilege]]) -> FigurePanel:
    """The figure with its words; `models`: name -> p (probability that a feature is active) -> statistic."""
    if not models:
        raise ValueError("privilege_panel: no model given. Give {name: {p: BasisPrivilege}}.")
    lines = []
    for name, found in models.items():
        x = [1 / p for p in found]
        low, high = ([float(f.rotated.quantile(q)) for f in found.values()] for q in (0.025, 0.975))
        mean = [float(f.rotated.mean()) for f in found.values()]
        lines.append(Line(name=name, x=x, y=[f.kurtosis for f in found.values()]))
        lines.append(Line(name=f"{name}, rotated", x=x, y=mean, low=low, high=high))
    return line_chart_panel(
        "Tails along neurons and along random directions",
        "Mean excess kurtosis over the neurons; each band holds 95 % of random rotations of the same activations. A "
        "curve clear above its own band is a privileged basis, a curve inside it a basis like any other.",
        lines,
        x_label="1/p: one in so many samples has a given feature",
        y_label="mean excess kurtosis",
        log_x=True,
    )
