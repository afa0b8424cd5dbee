"""Reading metrics files while they grow, and after several attempts."""

import logging
import threading

from gptopt.layout import metrics_file
from gptopt.tracking import MetricsFile, start_trackers
from gptopt.tracking.follow import merged_rows, rows


def write(run, attempt, start_step, steps, torn=b""):
    file = MetricsFile(metrics_file(run, attempt))
    file.write({"event": "start", "attempt": attempt, "start_step": start_step})
    for step in steps:
        file.write({"event": "train", "step": step, "by": attempt})
    file.close()
    with open(file.path, "ab") as tail:
        tail.write(torn)


def test_rows_appear_while_the_file_grows_and_end_at_stop(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"event": "start"}\n{"event": "tr')
    reader = rows(path, ended=lambda: False)
    assert next(reader) == {"event": "start"}

    def go_on():
        with open(path, "ab") as file:
            file.write(b'ain", "step": 1}\n{"event": "stop"}\n{"event": "train"}\n')

    timer = threading.Timer(0.1, go_on)
    timer.start()
    assert list(reader) == [{"event": "train", "step": 1}, {"event": "stop"}]
    timer.join()


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"event": "start"}\n{"event": "train", "st')
    assert list(rows(path, ended=lambda: True)) == [{"event": "start"}]


def test_attempts_merge_into_one_curve(tmp_path):
    # Attempt 2 goes on from 4, attempt 3 from 2: what both did beyond 2 was done again.
    write(tmp_path, 1, 0, range(1, 7), torn=b'{"event": "train", "step": 7')
    write(tmp_path, 2, 4, range(5, 9))
    write(tmp_path, 3, 2, range(3, 6))
    write(tmp_path, 4, 5, [])
    curve = [(row["step"], row["by"]) for row in merged_rows(tmp_path) if "step" in row]
    assert curve == [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3)]


def test_a_tracker_that_cannot_be_started_costs_one_warning(tmp_path, caplog):
    trackers = start_trackers({"wandb": {"finish_timeout": 1}}, tmp_path / "absent", attempt=1)
    trackers.poll()
    trackers.finish()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "tracker wandb was not started" in caplog.text
