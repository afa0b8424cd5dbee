"""Times that may not be compared are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptopt.results import load
from gptopt.results.clock import clock_doubts
from gptopt.results.compare import compare
from gptopt.results.plots import cost_and_quality
from gptopt.results.select import Selection

from .rundirs import configure, eval_row, start_row, train_row, write_run

STEPS = 200


def write_timed(
    root: Path, optimizer: str, times: list[float], *, host: str = "node7", **changes: Any
) -> None:
    """A run per learning rate; its steps take so many milliseconds, its first ones ten times."""
    for place, ms in enumerate(times):
        lr = 0.1 * 2**place
        config = configure(optimizer, lr, 0, **changes)
        rows = [start_row(1, 0), train_row(1, 5.0, step_ms=10 * ms)]
        rows += [train_row(step, 3.0, step_ms=ms) for step in (50, 100, STEPS)]
        rows.append(eval_row(STEPS, 2.0 + 0.1 * place, seconds=ms * STEPS / 1e3))
        number = len(list(root.glob("*")))
        write_run(root / f"{optimizer}-{number}", config, [rows], provenance={"host": host})


def test_equal_work_that_took_longer_is_told(tmp_path: Path) -> None:
    write_timed(tmp_path, "adamw", [20, 29, 25])
    assert clock_doubts([load(tmp_path)]) == []
    write_timed(tmp_path, "muon", [20, 31, 25])
    assert clock_doubts([load(tmp_path)]) == [
        "Seconds mislead: steps of equal work took, by the run, muon 20 to 31 ms."
    ]


def test_unequal_work_may_take_as_long_as_it_takes(tmp_path: Path) -> None:
    write_timed(tmp_path, "adamw", [20])
    write_timed(tmp_path, "adamw", [80], training__training_params__batch_size=32)
    write_timed(tmp_path, "adamw", [90], lr_scheduler__name="cosine")
    assert clock_doubts([load(tmp_path)]) == []


def test_hosts_are_told_and_have_their_own_speed(tmp_path: Path) -> None:
    write_timed(tmp_path, "adamw", [20, 21])
    write_timed(tmp_path, "muon", [80, 81], host="node8")
    assert clock_doubts([load(tmp_path)]) == ["Seconds mislead: the runs were on 2 hosts."]


@pytest.mark.parametrize(("cost", "is_told"), [("seconds", True), ("tokens", False)])
def test_a_comparison_in_seconds_tells_it(tmp_path: Path, cost: Any, is_told: bool) -> None:
    write_timed(tmp_path, "adamw", [20, 60])
    write_timed(tmp_path, "muon", [20, 20])
    found = load(tmp_path)
    sides = [(t, Selection.parse(t).of(found)) for t in ("optimizer=muon", "optimizer=adamw")]
    comparison = compare(sides[0], sides[1], compared=(), target=None, cost=cost)
    said = "! Seconds mislead: steps of equal work took, by the run, adamw 20 to 60 ms."
    assert (said in comparison.lines()) == is_told


def test_quality_is_shown_against_the_undisturbed_time(tmp_path: Path) -> None:
    # the best trial, the first, was disturbed; the lower quartile of 90, 20, 22, 24, 26 is 22
    write_timed(tmp_path, "adamw", [90, 20, 22, 24, 26])
    plot = cost_and_quality(load(tmp_path))
    assert plot.data["seconds"].tolist() == pytest.approx([22 * STEPS / 1e3])
    assert "fastest quartile" in plot.caption


def test_runs_that_logged_no_step_have_no_point(tmp_path: Path) -> None:
    write_run(tmp_path / "run", configure("muon", 0.02, 0), [[start_row(1, 0)]], state="failed")
    assert cost_and_quality(load(tmp_path)).data.empty
