from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from gptopt.cli import main
from gptopt.results import load
from gptopt.sweep.plan import plan

from .rivals import write_both, write_rival

Results = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_both(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Runs ``gptopt results …`` in an empty directory: exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def results(*arguments: str | Path) -> tuple[int, str]:
        answer = CliRunner().invoke(main, ["results", *map(str, arguments)])
        return answer.exit_code, answer.output

    return results


def test_two_selections_and_two_directories_are_compared(runs: Path, results: Results) -> None:
    code, said = results("compare", "optimizer=muon", "optimizer=adamw", "--runs", runs)
    assert code == 0, said
    assert "A - B = -0.2133 nats, 95 % interval" in said
    write_rival(Path("one"), "muon", {0.02: [2.0, 2.1]})
    write_rival(Path("other"), "muon", {0.04: [2.3, 2.5]})
    code, said = results("compare", "one", "other", "--target", "3")
    assert code == 0, said
    assert "A - B = -0.3500" in said
    assert "steps to 3.0000" in said


def test_what_cannot_be_compared_ends_with_65_and_a_mistake_with_2(
    runs: Path, results: Results
) -> None:
    write_rival(Path("one"), "muon", {0.02: [2.0, 2.1]}, fingerprints={"eval": "e2"})
    code, said = results("compare", "one", "optimizer=adamw", "--runs", runs)
    assert code == 65
    assert "different validation tokens: e2 and e1" in said
    for arguments, hint in {
        ("optimizer=moun", "optimizer=adamw"): "Did you mean 'muon'?",
        ("optimzer=muon", "optimizer=adamw"): "Did you mean 'optimizer'?",
        ("nowhere", "optimizer=adamw"): "nowhere: no such directory, and no condition",
    }.items():
        code, said = results("compare", *arguments, "--runs", runs)
        assert (code, hint in said) == (2, True), said


def test_a_path_without_runs_is_an_error_in_words(tmp_path: Path, results: Results) -> None:
    (tmp_path / "empty").mkdir()
    for command in (["show"], ["next"], ["table"], ["report"], ["diff", "empty"]):
        code, said = results(*command, "empty")
        assert (code, said.startswith("No run below empty.")) == (2, True), (command, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_show_and_diff_take_single_runs(runs: Path, results: Results) -> None:
    code, said = results("show", runs)
    assert (code, said) == (2, f"{runs} holds 18 runs; name the directory of one.\n")
    code, said = results("diff", runs / "muon-0", runs / "muon-1")
    assert code == 0
    assert "training.training_params.seed: 0 | 1" in said
    assert results("show", runs / "muon-0")[0] == 0


def test_the_table_is_written_in_the_format_of_its_suffix(runs: Path, results: Results) -> None:
    assert results("table", runs, "-o", "runs.csv")[0] == 0
    assert len(Path("runs.csv").read_text().splitlines()) == 19
    assert results("table", runs, "-o", "runs.tex")[0] == 0
    assert "\\toprule" in Path("runs.tex").read_text()
    code, said = results("table", runs, "-o", "runs.doc")
    assert (code, ".csv, .parquet, .tex" in said) == (2, True)


def test_next_writes_a_valid_sweep_file_once(runs: Path, results: Results) -> None:
    code, said = results("next", runs)
    assert code == 0, said
    (file,) = Path("params").iterdir()
    assert said.endswith(f"wrote {file}; next: gptopt sweep submit {file}\n")
    asked = {
        (run.overrides[0], text)
        for run in plan(file, [], max_runs=100).runs
        for text in run.overrides
        if "optimizer_params.lr=" in text
    }
    # Between 0.01, 0.02, 0.04 and 0.001, 0.002, 0.004, at three significant digits.
    assert asked == {
        ("optimizer='muon'", "optimizer.optimizer_params.lr=0.0141"),
        ("optimizer='muon'", "optimizer.optimizer_params.lr=0.0283"),
        ("optimizer='adamw'", "optimizer.optimizer_params.lr=0.00141"),
        ("optimizer='adamw'", "optimizer.optimizer_params.lr=0.00283"),
    }
    before = file.read_bytes()
    code, said = results("next", runs)
    assert (code, "nothing is overwritten" in said) == (2, True)
    assert file.read_bytes() == before


def test_next_writes_nothing_that_cannot_be_run(tmp_path: Path, results: Results) -> None:
    write_rival(tmp_path / "runs", "an-optimizer-that-is-gone", {0.1: [2.0, 2.1, 2.2]})
    code, said = results("next", "runs")
    assert code == 2
    assert "an-optimizer-that-is-gone" in said
    assert "\nparams/runs.next.json is not written: 1 problem in the configuration" in said
    assert "- params/runs.next.json" in said
    assert tempfile.gettempdir() not in said.replace(str(tmp_path), "")
    assert not Path("params").exists()


def test_logs_of_other_programs_become_runs(results: Results) -> None:
    lines = ["step 0: train loss 4.2, val loss 4.3", "step 10: train loss 3.1, val loss 3.2"]
    Path("log.txt").write_text("\n".join(lines) + "\n")
    code, said = results("import", "nanogpt", "log.txt", "model.name=gpt2")
    assert (code, said) == (0, "outputs/imported: 1 runs\n")
    (row,) = load("outputs").runs.to_dict("records")
    assert (row["model"], row["final_val_loss"]) == ("gpt2", 3.2)
    code, said = results("import", "nanogtp", "log.txt")
    assert (code, "nanogpt" in said) == (2, True)
    code, said = results("import", "nanogpt", "log.txt", "gpt2")
    assert (code, said) == (2, "'gpt2': a setting is key=value, such as model.name=gpt2.\n")


def test_watch_prints_once_where_no_terminal_is(runs: Path, results: Results) -> None:
    code, said = results("watch", runs)
    assert code == 0
    assert said.splitlines()[0].endswith("18 runs, 18 completed")
    code, said = results("watch", runs, "--serve", "0.0.0.0:8000")
    assert (code, "served on 127.0.0.1 only" in said) == (2, True)


def test_every_command_is_listed_with_a_word_of_help(results: Results) -> None:
    code, said = results("--help")
    assert code == 0
    listed = [line.split() for line in said.partition("Commands:")[2].splitlines() if line]
    known = "check compare diff import next report show table watch"
    assert {name for name, *help_ in listed if help_} >= set(known.split())


def test_help_costs_no_pandas_and_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "gptopt.cli", "results", "check", "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in answer.stderr.splitlines()}
    assert "click" in imported
    assert not {"torch", "pandas", "scipy", "matplotlib"} & imported
