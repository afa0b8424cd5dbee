"""A tree that is read from the cache says what one that is read anew says."""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from gptopt import layout
from gptopt.results import Runs, cache, load, tree
from gptopt.results.columns import METRIC_COLUMNS
from gptopt.results.store import MOST_COLUMNS

from .rundirs import configure, eval_row, start_row, train_row, write_run

STEPS = range(10, 60, 10)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "FEWEST_RUNS", 1)
    return tmp_path / "cache"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    root = tmp_path / "outputs"
    for seed in range(6):
        add_run(root, seed)
    diagnostics = {"event": "diagnostics", "step": 10, "rank": 2.5}
    config = configure("muon", 0.02, 9, data__name="ünï")
    write_run(root / "odd", config, [[start_row(1, 0), diagnostics, eval_row(10, "nan")]])
    (root / "foreign").mkdir()
    (root / "foreign" / layout.RESOLVED).write_text("lr: 1\n")
    return root


def add_run(root: Path, seed: int) -> Path:
    rows = [start_row(1, 0), *(train_row(step, step / (seed + 1)) for step in STEPS)]
    return write_run(root / f"{seed}", configure("adamw", 0.1, seed), [[*rows, eval_row(50, 3.0)]])


@pytest.fixture
def read_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the directories that are read, not taken from the cache."""
    seen: list[str] = []
    original = tree.read_run
    monkeypatch.setattr(
        tree, "read_run", lambda run, once: seen.append(run.name) or original(run, once=once)
    )
    return seen


def by_run(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with the runs in one order, each of them in its own."""
    return rows.sort_values("run_id", kind="stable", ignore_index=True)


def assert_same(found: Runs, expected: Runs) -> None:
    pd.testing.assert_frame_equal(found.runs, expected.runs)
    for table in ("metrics", "diagnostics"):
        rows, expected_rows = by_run(getattr(found, table)), by_run(getattr(expected, table))
        pd.testing.assert_frame_equal(rows, expected_rows)
    assert sorted(found.problems.itertuples(index=False, name=None)) == sorted(
        expected.problems.itertuples(index=False, name=None)
    )


def test_the_second_reading_says_the_same_and_reads_no_run(
    outputs: Path, read_runs: list[str]
) -> None:
    first = load(outputs)
    assert len(read_runs) == 8
    read_runs.clear()
    second = load(outputs)
    assert read_runs == []
    assert_same(second, first)
    assert_same(second, load(outputs, cache=False))
    assert len(second.runs) == 7
    assert second.diagnostics["value"].tolist() == [2.5]


def append(outputs: Path) -> None:
    with open(layout.metrics_file(outputs / "3", 1), "a") as file:
        file.write(json.dumps(eval_row(60, 2.0, **{"val/new": 1.5})) + "\n")


def resume(outputs: Path) -> None:
    layout.attempt_file(outputs / "3", 2).write_text("{}")
    text = json.dumps(start_row(2, 20)) + "\n" + json.dumps(train_row(30, 1.0)) + "\n"
    layout.metrics_file(outputs / "3", 2).write_text(text)


def end(outputs: Path) -> None:
    (outputs / "3" / "completed.json").rename(outputs / "3" / "failed.json")


def reconfigure(outputs: Path) -> None:
    file = outputs / "3" / layout.RESOLVED
    file.write_text(file.read_text() + "note: added later\n")


def replace_keeping_size_and_time(outputs: Path) -> None:
    file = layout.metrics_file(outputs / "3", 1)
    stat = file.stat()
    other = file.with_name("other")
    other.write_text(file.read_text().replace("3.0", "9.0"))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)


def annotate(outputs: Path) -> None:
    (outputs / "3" / layout.OVERRIDES).write_text("- optimizer=sgd\n")


CHANGES = [append, resume, end, reconfigure, replace_keeping_size_and_time, annotate]


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_changed_is_read_again(outputs: Path, read_runs: list[str], change) -> None:
    before = load(outputs).runs
    change(outputs)
    read_runs.clear()
    found = load(outputs)
    assert read_runs == ["3"]
    assert not found.runs.equals(before)
    assert_same(found, load(outputs, cache=False))
    read_runs.clear()
    assert_same(load(outputs), found)
    assert read_runs == []


def test_runs_that_come_and_go_come_and_go(outputs: Path, read_runs: list[str]) -> None:
    load(outputs)
    shutil.rmtree(outputs / "1")
    add_run(outputs, 20)
    read_runs.clear()
    found = load(outputs)
    assert read_runs == ["20"]
    assert_same(found, load(outputs, cache=False))


def any_row(rng: random.Random, step: int) -> dict:
    return rng.choice(
        [
            train_row(step, rng.random()),
            eval_row(step, rng.random(), **{f"val/{rng.randrange(3)}": rng.random()}),
            {"event": f"other{rng.randrange(2)}", "step": step, "z": rng.random()},
            {"event": "diagnostics", "step": step, f"rank{rng.randrange(4)}": rng.random()},
        ]
    )


def test_any_history_of_growing_shrinking_and_vanishing_runs_is_told_exactly(
    tmp_path: Path,
) -> None:
    rng = random.Random(5)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    for _ in range(40):
        run = outputs / f"{rng.randrange(8)}"
        shutil.rmtree(run, ignore_errors=True)
        if rng.random() < 0.8:
            rows = [any_row(rng, step) for step in range(rng.choice([0, 1, 3, 9, 30]))]
            write_run(run, configure("adamw", 0.1, int(run.name)), [[start_row(1, 0), *rows]])
        expected = load(outputs, cache=False)
        assert_same(load(outputs), expected)
        assert_same(load(outputs), expected)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("rows.*/*/*"))


@pytest.mark.parametrize("diagnostics", [True, False])
def test_many_changes_do_not_make_the_cache_grow_for_ever(
    outputs: Path, home: Path, diagnostics: bool
) -> None:
    if not diagnostics:
        shutil.rmtree(outputs / "odd")
    load(outputs)
    directory = cache.folder(os.path.realpath(outputs))
    first = _size(directory)
    for number in range(12):
        for seed in range(6):
            os.utime(layout.metrics_file(outputs / f"{seed}", 1), (number, number))
        assert_same(load(outputs), load(outputs, cache=False))
    assert len(list(directory.glob("rows.*"))) == 1
    assert _size(directory) <= 3 * first


def test_more_columns_than_a_process_may_have_files_are_told_not_raised(outputs: Path) -> None:
    names = {f"k{number}": float(number) for number in range(1500)}
    with open(layout.metrics_file(outputs / "3", 1), "a") as file:
        file.write(json.dumps(eval_row(60, 2.0, **names)) + "\n")
    found = load(outputs)
    assert_same(found, load(outputs, cache=False))
    assert found.metrics["val_loss"].max() == 3.0
    assert len(found.metrics.columns) <= MOST_COLUMNS + len(METRIC_COLUMNS)
    (told,) = found.problems[found.problems["problem"].str.contains("columns")].itertuples()
    assert told.count + sum(f"k{number}" in found.metrics for number in range(1500)) == 1500


def test_what_is_written_into_a_table_is_not_kept(outputs: Path) -> None:
    load(outputs)
    found = load(outputs)
    found.metrics["step"].to_numpy(copy=False).setflags(write=True)
    found.metrics.loc[:, "train_loss"] = -1.0
    assert_same(load(outputs), load(outputs, cache=False))


def test_metrics_read_late_are_those_of_their_table(outputs: Path) -> None:
    found = load(outputs)
    expected = load(outputs, cache=False).metrics
    for number in range(3):  # rewrites the cache, and removes the file it was in
        for seed in range(6):
            os.utime(layout.metrics_file(outputs / f"{seed}", 1), (number, number))
        load(outputs)
    pd.testing.assert_frame_equal(found.metrics, expected)


def test_a_cache_cut_anywhere_is_rebuilt_and_said_so_once(
    outputs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(outputs)
    expected.metrics  # noqa: B018, reads them now
    directory = cache.folder(os.path.realpath(outputs))
    for kind in ("index.json", "rows.*/metrics/2.bin", "rows.*/diagnostics/0.bin"):
        length = next(directory.glob(kind)).stat().st_size
        for share in (0, 0.3, 0.7, 1 - 1 / length):
            file = next(directory.glob(kind))
            file.write_bytes(file.read_bytes()[: int(share * length)])
            caplog.clear()
            found = load(outputs)
            assert_same(found, expected)
            assert len(caplog.records) == 1
            assert "read anew" in caplog.text
            caplog.clear()
            load(outputs)
            assert not caplog.records


@pytest.mark.parametrize(
    "content", ["null", "[]", "{}", '{"version": "0"}', '{"version": 1, "runs": []}', "\x00"]
)
def test_any_other_index_is_no_cache(outputs: Path, content: str) -> None:
    expected = load(outputs)
    index = cache.folder(os.path.realpath(outputs)) / "index.json"
    index.write_text(content)
    assert_same(load(outputs), expected)
    assert json.loads(index.read_text())["version"] == cache.VERSION


def test_a_state_that_no_file_tells_is_never_old(outputs: Path) -> None:
    rows = [[start_row(1, 0), train_row(10, 3.0)]]
    run = write_run(outputs / "live", configure("adamw", 0.1, 40), rows, state="running")

    def state() -> str:
        runs = load(outputs).runs
        return runs.loc[runs["seed"] == 40, "state"].item()

    assert state() == "interrupted"
    hold = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(run / layout.LOCK)]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert state() == "running"
        holder.kill()
    assert state() == "interrupted"


def test_readers_at_once_all_read_everything(outputs: Path) -> None:
    expected = load(outputs, cache=False)
    code = (
        "import sys; from gptopt.results import load, cache; cache.FEWEST_RUNS = 1\n"
        "for _ in range(4): found = load(sys.argv[1]); print(len(found.runs), len(found.metrics))"
    )
    command = [sys.executable, "-c", code, str(outputs)]
    readers = [subprocess.Popen(command, stdout=-1, text=True) for _ in range(3)]
    for number in range(4):
        for seed in range(6):
            os.utime(layout.metrics_file(outputs / f"{seed}", 1), (number, number))
        assert_same(load(outputs), expected)
    line = f"{len(expected.runs)} {len(expected.metrics)}\n"
    for reader in readers:
        assert reader.communicate()[0] == 4 * line
        assert reader.returncode == 0


def test_while_another_process_writes_nothing_is_kept(outputs: Path) -> None:
    expected = load(outputs)
    append(outputs)
    directory = cache.folder(os.path.realpath(outputs))
    index = (directory / "index.json").read_bytes()
    with cache.writing(directory) as alone:
        assert alone
        found = load(outputs)
        assert (directory / "index.json").read_bytes() == index
    assert_same(found, load(outputs, cache=False))
    assert len(found.metrics) == len(expected.metrics) + 1


def test_without_a_place_for_a_cache_everything_is_read(outputs: Path, home: Path) -> None:
    home.write_text("a file where the directory should be")
    assert_same(load(outputs), load(outputs, cache=False))


def test_a_small_tree_or_a_wish_leaves_no_cache(
    outputs: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(outputs, cache=False)
    monkeypatch.setattr(cache, "FEWEST_RUNS", 9)
    load(outputs)
    assert not home.exists()


def test_reading_writes_nothing_into_runs(outputs: Path) -> None:
    def content() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in outputs.rglob("*")}

    before = content()
    load(outputs).metrics  # noqa: B018
    assert content() == before


def test_roots_that_overlap_are_read_once(outputs: Path) -> None:
    both = load([outputs / "2", outputs, outputs / "3"])
    assert len(both.runs) == len(load(outputs).runs)
    assert len(both.metrics) == len(load(outputs).metrics)


@pytest.mark.filterwarnings("error::pandas.errors.PerformanceWarning")
def test_a_table_of_several_roots_takes_another_column_without_a_warning(outputs: Path) -> None:
    for seed in (50, 51):
        settings = {f"args__{seed}_{number}": number for number in range(90)}
        more = configure("adamw", 0.1, seed, **settings)
        write_run(outputs / f"{seed}" / "run", more, [[start_row(1, 0), train_row(10, 1.0)]])
    runs = load([outputs / "50", outputs / "51"]).runs
    assert len(runs.assign(further=1)) == 2


def test_on_a_terminal_a_long_reading_shows_how_far_it_is(outputs: Path) -> None:
    code = (
        "import sys; from gptopt.results import load, tree; tree.MANY_RUNS = int(sys.argv[2])\n"
        "print(len(load(sys.argv[1]).runs))"
    )

    def printed(fewest: int) -> str:
        terminal, inside = pty.openpty()
        command = [sys.executable, "-c", code, str(outputs), str(fewest)]
        done = subprocess.run(command, stdout=-1, stderr=inside, text=True, check=True)
        os.write(inside, b".")  # something to read, whatever the process said
        os.close(inside)
        shown = os.read(terminal, 1 << 16).decode()
        os.close(terminal)
        assert done.stdout == "7\n"
        return shown

    assert "reading runs" in printed(8)
    assert "reading runs" not in printed(9)
