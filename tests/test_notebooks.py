"""Every notebook of the documentation runs from top to bottom, in a smaller size, and shows what it speaks of."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs").glob("*.ipynb"))
assert NOTEBOOKS, "docs/ has no notebook"
SMALLER = {"tutorial": "toy_samples, language_samples, described_tokens = 40_000, 300_000, 10_000"}
"""What takes the place of the cell tagged "parameters"."""
SHOWN = {
    "tutorial": (
        r"mean_matched_cosine +0\.\d+ +chance 0\.3\d+",
        r"latent +\d+ +value: .* F1 0\.[5-9]\d|F1 1\.00",
        r"promotes: \w+ \+",
        r"the model said '\w+', now it says '\w+'",
        r"known_language\.html \d\.\d MB",
    )
}
"""What its output must contain."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # its own process; tests run beside it
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source = SMALLER[path.stem]
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    for wanted in SHOWN[path.stem]:
        assert re.search(wanted, shown), f"{wanted!r} is not in:\n{shown}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_kept_and_free_of_errors(path: Path) -> None:
    """Read on a page, it shows what its full size gave."""
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.get("text") for output in outputs)
    assert all(output.output_type != "error" for output in outputs)
    assert path.stat().st_size < 100_000
