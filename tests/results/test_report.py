from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from gptopt import layout
from gptopt.results import Runs, report, table

from .rundirs import configure, eval_row, start_row, write_run

NOTEBOOK = layout.PROJECT / "analysis" / "loss_curves.ipynb"


@pytest.fixture(scope="module")
def page(sweep_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(sweep_dir, tmp_path_factory.mktemp("report") / "new")


class Page(HTMLParser):
    """Text, links and sources of a page; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_shows_every_run_in_all_three_forms(page: Path, sweep: Runs) -> None:
    written = pd.read_csv(page.with_name("runs.csv"))
    assert set(written["run_id"]) == set(sweep.runs["run_id"])
    for text in ("".join(Page(page.read_text()).text), page.with_suffix(".md").read_text()):
        for row in sweep.runs.itertuples():
            assert row.run_name in text
            assert f"{row.final_val_loss:.4f}" in text


def test_the_page_needs_nothing_but_itself(page: Path) -> None:
    html = page.read_text()
    parsed = Page(html)
    images = [source for source in parsed.sources if source.startswith("data:image/png;base64,")]
    links = [source for source in parsed.sources if source not in images]
    assert len(images) == len(links) == 6
    for link in links:
        assert (page.parent / link).read_bytes().startswith(b"%PDF")
        assert (page.parent / link).with_suffix(".png").is_file()
    assert "http" not in html
    assert "<script" not in html


def test_warnings_stand_above_everything_that_was_found(page: Path) -> None:
    for text in ("".join(Page(page.read_text()).text), page.with_suffix(".md").read_text()):
        assert text.index("sgd is not tuned") < text.index("What was run")
        assert "slurm_scripts/submit.sh params/lr_sweep.json" in text
        assert "muon" in text[text.index("highest of those tried") :]


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>|x"
    config = configure("adamw", 0.1, 0, paths__run_name=name, data__name="a&b <i>")
    write_run(tmp_path / "a", config, [], state="queued")
    html = report(tmp_path, tmp_path / "report").read_text()
    assert name in "".join(Page(html).text)
    assert "<script" not in html
    assert "python run_hydra.py optimizer=muon" in html
    assert name.replace("|", "\\|") in (tmp_path / "report" / "report.md").read_text()


def test_a_report_of_unfinished_runs_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [], state="queued")
    text = report(tmp_path, tmp_path / "report").with_suffix(".md").read_text()
    assert "No run has ended yet." in text
    assert "Not finished, and not counted: 1 queued." in text


def test_the_table_shows_what_was_swept(tmp_path: Path) -> None:
    for decay in (0.0, 0.1):
        config = configure("adamw", 0.1, 0, optimizer__optimizer_params__weight_decay=decay)
        write_run(tmp_path / f"{decay}", config, [[start_row(1, 0), eval_row(10, 2.0 + decay)]])
    found = table(tmp_path)
    assert found["optimizer.optimizer_params.weight_decay"].tolist() == [0.0, 0.1]
    assert found["final_val_loss"].tolist() == [2.0, 2.1]


def test_the_notebook_is_thin_and_stored_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    lines = [line for cell in code for line in cell["source"]]
    assert lines[0] == 'PATHS = ["../outputs"]\n'
    assert not any("matplotlib" in line or "pandas" in line for line in lines)


def test_the_notebook_executes(sweep_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTOPT_RUNS", os.pathsep.join([str(sweep_dir), str(sweep_dir / "gpt2")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 5
    assert any("dap-ns-nadam" in out.get("data", {}).get("text/html", "") for out in outputs)
