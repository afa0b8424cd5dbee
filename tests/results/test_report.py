from __future__ import annotations

import itertools
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from gptopt.results import Runs, report, table
from gptopt.results.page import FOLDED_ROWS
from gptopt.results.stats import best_trials, trials
from gptopt.results.style import Plot

from .rundirs import configure, eval_row, start_row, write_run


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
        if tag not in ("meta", "img", "link"):
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
    links = [source for source in parsed.sources if source.endswith(".pdf")]
    assert len(images) == len(links) == 8
    for link in links:
        assert (page.parent / link).read_bytes().startswith(b"%PDF")
        assert (page.parent / link).with_suffix(".png").is_file()
    for place in (source for source in parsed.sources if source.startswith("#")):
        assert f' id="{place[1:]}"' in html
    assert "http" not in html


def test_warnings_stand_above_everything_that_was_found(page: Path) -> None:
    for text in ("".join(Page(page.read_text()).text), page.with_suffix(".md").read_text()):
        assert text.index("sgd is not tuned") < text.rindex("What was run")
        assert "They were started by the sweeps lr_sweep." in text
        assert "muon" in text[text.index("highest of those tried") :]


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>|x"
    config = configure("adamw", 0.1, 0, paths__run_name=name, data__name="a&b <i>")
    write_run(tmp_path / "a", config, [], state="new")
    html = report(tmp_path, tmp_path / "report").read_text()
    assert name in "".join(Page(html).text)
    assert name not in html
    assert html.count("<script") == 1
    assert name.replace("|", "\\|") in (tmp_path / "report" / "report.md").read_text()


def test_a_report_of_unfinished_runs_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [], state="new")
    text = report(tmp_path, tmp_path / "report").with_suffix(".md").read_text()
    assert "No run has ended with a validation loss." in text
    assert "Not finished, and not counted: 1 new." in text


def test_the_table_shows_what_was_swept(tmp_path: Path) -> None:
    for decay in (0.0, 0.1):
        config = configure("adamw", 0.1, 0, optimizer__optimizer_params__weight_decay=decay)
        write_run(tmp_path / f"{decay}", config, [[start_row(1, 0), eval_row(10, 2.0 + decay)]])
    found = table(tmp_path)
    assert found["optimizer.optimizer_params.weight_decay"].tolist() == [0.0, 0.1]
    assert found["final_val_loss"].tolist() == [2.0, 2.1]


def test_p_values_are_corrected_for_the_number_of_comparisons(page: Path, sweep: Runs) -> None:
    text = page.with_suffix(".md").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("| optimizer", "| muon "))]
    head, row = next(pair for pair in itertools.pairwise(lines) if "p (Holm)" in pair[0])
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    best = best_trials(trials(sweep.runs)).set_index("optimizer")
    p = best["p"].dropna()
    assert len(p) == 3
    rank = int((p <= p["muon"]).sum())  # Holm: times 3 for the smallest, 2 for the next, 1
    assert cells["p"] == f"{p['muon']:.4f}"
    assert float(cells["p (Holm)"]) == pytest.approx(p["muon"] * (4 - rank), abs=1e-4)


def test_the_report_counts_what_became_of_the_runs_of_each_optimizer(page: Path) -> None:
    text = page.with_suffix(".md").read_text()
    # rundirs: 6 rates x 2 seeds, of which one rate diverged, and an interrupted run
    assert "| muon | 13 | 10 | 2 | 0 | 1 | 6 | 6 | 3 |" in text
    assert "| lr-0.32-seed-0 | diverged | it diverged |" in text


def test_several_budgets_make_figures_across_them(
    real_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plot, "render", lambda plot, kind: kind.encode())  # quick
    text = report(real_dir, tmp_path / "report").with_suffix(".md").read_text()
    across = text[text.index("## Across workloads") :]
    assert "figures/all-profile.png" in across
    assert "figures/all-speed-up.png" in across
    for figure in ("layers-relative_update", "layers-step_size", "cost"):
        assert f"figures/gpt-tiny-on-markov-3072-tokens-{figure}.png" in text


def test_a_long_table_is_folded_on_the_page_and_whole_in_it(tmp_path: Path) -> None:
    for number in range(FOLDED_ROWS + 1):
        config = configure("adamw", 0.1, number)
        write_run(tmp_path / f"{number}", config, [], state="new")
    html = report(tmp_path, tmp_path / "report").read_text()
    assert "<summary>26 rows</summary>" in html
    assert html.count("lr-0.1-seed-") == 26
