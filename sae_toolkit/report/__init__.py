"""What a run found: one self-contained HTML page, and the same numbers as JSON."""

from sae_toolkit.report.build import build_report as build_report
from sae_toolkit.report.cosine_histogram import cosine_histogram as cosine_histogram
from sae_toolkit.report.cosine_histogram import cosine_histogram_panel as cosine_histogram_panel
from sae_toolkit.report.curves import training_curves as training_curves
from sae_toolkit.report.curves import training_curves_panel as training_curves_panel
from sae_toolkit.report.density import density as density
from sae_toolkit.report.density import density_panel as density_panel
from sae_toolkit.report.expectation import ControlScore as ControlScore
from sae_toolkit.report.expectation import Expectation as Expectation
from sae_toolkit.report.expectation import ExpectationResult as ExpectationResult
from sae_toolkit.report.expectation import NamedScore as NamedScore
from sae_toolkit.report.geometry import dictionary_geometry as dictionary_geometry
from sae_toolkit.report.geometry import geometry_panel as geometry_panel
from sae_toolkit.report.match_matrix import match_matrix as match_matrix
from sae_toolkit.report.match_matrix import match_matrix_panel as match_matrix_panel
from sae_toolkit.report.page import render_page as render_page
from sae_toolkit.report.provenance import collect_provenance as collect_provenance
from sae_toolkit.report.reading import read_report as read_report
from sae_toolkit.report.report import FigurePanel as FigurePanel
from sae_toolkit.report.report import Report as Report
from sae_toolkit.report.report import ReportedSAE as ReportedSAE
from sae_toolkit.report.score_bars import score_bars as score_bars
from sae_toolkit.report.score_bars import score_bars_panel as score_bars_panel
