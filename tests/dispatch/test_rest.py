"""What of a submission is left to do, and whether another turn would help."""

import json
import os
import time
from pathlib import Path

import pytest

from gptopt import layout
from gptopt.dispatch import rest


def test_a_launch_takes_what_has_no_result_and_was_not_given_up_since_the_submission(recorded):
    record, _ = recorded({"seed": [0, 1, 2, 3, 4, 5]})
    runs = [Path(row.run) for row in record.rows()]
    old, new = time.time() - 60, time.time() + 60
    files = {
        (0, layout.TERMINAL["completed"]): new,
        (1, layout.TERMINAL["failed"]): new,
        (2, layout.TERMINAL["failed"]): old,
        (3, layout.STOP_FILE): new,
        (4, layout.STOP_FILE): old,
    }
    for (index, name), written in files.items():
        runs[index].mkdir(parents=True)
        (runs[index] / name).write_text("{}")
        os.utime(runs[index] / name, (written, written))
    assert [row.index for row in rest.unfinished(record)] == [2, 4, 5]


def begun(run, *start_steps, saved, state="preempted"):
    """A run with attempts that began now, at these steps; None: it died before it told."""
    (run / layout.ATTEMPTS).mkdir(parents=True)
    for number, step in enumerate(start_steps, 1):
        told = {"started": time.time(), "ended": time.time()} | (
            {} if step is None else {"start_step": step}
        )
        layout.attempt_file(run, number).write_text(json.dumps(told))
    status = {"state": state, "attempt": len(start_steps), "saved_step": saved}
    (run / layout.STATUS).write_text(json.dumps(status))


@pytest.mark.parametrize(
    ("start_steps", "saved", "is_stuck"),
    [
        ((0, 0), 0, False),
        ((0, 0, 0), 0, True),
        ((0, 0, 0), 10, False),
        ((0, 10, 10, 10), 10, True),
        ((0, 0, 10), 10, False),
        ((None, None, None), 0, True),
        ((10, None, None), 20, False),
    ],
)
def test_three_attempts_that_save_no_further_step_are_enough(
    tmp_path, start_steps, saved, is_stuck
):
    begun(tmp_path / "run", *start_steps, saved=saved)
    assert rest.is_stuck(tmp_path / "run", 3) == is_stuck
    assert rest.may_go_on(tmp_path / "run", 3) != is_stuck
    assert not rest.is_stuck(tmp_path / "run", 3, since=time.time() + 60)


def test_a_job_begins_at_its_place_and_passes_over_what_others_have(recorded):
    record, _ = recorded({"seed": [0, 1, 2, 3, 4]})
    runs = [Path(row.run) for row in record.rows()]
    begun(runs[1], 0, 0, 0, saved=0)
    rows = rest.unclaimed(record, 3, 3)
    assert [next(rows).index, next(rows).index] == [3, 4]
    runs[0].mkdir(parents=True)
    (runs[0] / layout.TERMINAL["failed"]).write_text("{}")  # by another job, meanwhile
    assert [row.index for row in rows] == [2]


def test_a_job_that_lost_its_node_takes_up_what_its_earlier_start_may_still_run(
    recorded, monkeypatch
):
    record, _ = recorded({"seed": [0, 1]})
    first, second = (Path(row.run) for row in record.rows())
    for run, job in ((first, "12"), (second, "13")):
        begun(run, 0, saved=0)
        at_work = {"host": "elsewhere", "job": job, "restart": 0, "started": time.time()}
        layout.attempt_file(run, 1).write_text(json.dumps(at_work))
    assert list(rest.unclaimed(record, 0, 3)) == []
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert [row.index for row in rest.unclaimed(record, 0, 3)] == [0]


def test_another_turn_helps_while_runs_get_on_and_nobody_has_cancelled(recorded):
    record, _ = recorded({"seed": [0, 1]})
    run = Path(record.row(0).run)
    turn = rest.Turn(record, 3)
    assert not turn.another_helps(rest.unfinished(record))
    begun(run, 0, saved=5, state="interrupted")  # by the stop file that disBatch's job makes
    assert turn.another_helps(rest.unfinished(record))
    (record.directory / layout.STOP_FILE).touch()
    assert not turn.another_helps(rest.unfinished(record))
