"""The notebooks in examples/ run from top to bottom, on generated data and with small trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermafuse.data.synthetic.dataset import write_synthetic
from documentation import ROOT, write_clinic

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
#: Put before the first cell: `documentation.small_trainings` says what it changes.
FIRST = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import pytest, documentation
documentation.small_trainings(pytest.MonkeyPatch())
"""


@pytest.mark.timeout(900)
@pytest.mark.slow  # a TensorFlow each; .ci/run runs it (make docs)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    data = write_synthetic(tmp_path / "HAM10000", lesions=70, seed=8, size=(64, 48))
    write_clinic(tmp_path / "clinic", data, more=False)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST))
    NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    drawn = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs if "data" in out]
    assert any("image/png" in out["data"] for out in drawn)
    assert any("text/html" in out["data"] for out in drawn)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_its_outputs_are_small(path: Path) -> None:
    import nbformat

    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 200_000
