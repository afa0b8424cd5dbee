from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from gptopt import layout
from gptopt.results import Runs

from .realruns import STEPS

NOTEBOOKS = sorted((layout.PROJECT / "analysis").glob("*.ipynb"))
FIGURES = {
    "compare_optimizers": 3 + 2 * 3 + 2,  # of all three budgets of realruns.py
    "cost_vs_quality": 2,
    "import_external": 1,
    "loss_curves": 5 + 2,
    "lr_sensitivity": 2,
}


@pytest.fixture(scope="module")
def one_budget(real: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to the runs of one budget, as in multirun/."""
    links = tmp_path_factory.mktemp("one_budget")
    runs = real.runs[real.runs["max_steps"] == STEPS[1]]
    for run in map(Path, runs["path"]):
        (links / run.name).symlink_to(run)
    return links


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_and_stored_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    lines = [line for cell in code for line in cell["source"]]
    assert len(lines) < 45
    assert not any("matplotlib" in line or "import pandas" in line for line in lines)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_executes(
    notebook: Path, real_dir: Path, one_budget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = real_dir if notebook.stem == "compare_optimizers" else one_budget
    monkeypatch.setenv("GPTOPT_RUNS", str(runs))
    book = nbformat.read(notebook, as_version=4)
    NotebookClient(book, timeout=120, kernel_name="python3").execute()
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    figures = sum("image/png" in out.get("data", {}) for out in outputs)
    assert figures == FIGURES[notebook.stem]
    assert not any(out.get("name") == "stderr" for out in outputs)
