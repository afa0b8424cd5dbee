"""A run that no longer gets on ends with its stacks and exit code 70, and goes on when started."""

import functools
import os
import signal
import subprocess
import sys
import time

import pytest
from tiny import end, in_step, result, start, tiny

import gptopt
from gptopt import layout
from gptopt.config.identity import run_directory
from gptopt.state import read_state
from gptopt.sweep.failures import failure


def lost_in_a_step(step):
    in_step(step, stuck).start()


def stuck():
    time.sleep(3600)


def test_a_run_that_hangs_is_ended_with_its_stacks_and_goes_on_when_it_is_started_again(tmp_path):
    expected = result(gptopt.train(tiny(tmp_path / "undisturbed")).run)
    config = tiny(tmp_path / "lost", "cluster.hang_min=0.2")
    run = run_directory(config)
    assert end(start(config, tmp_path / "log", functools.partial(lost_in_a_step, 10))) == 70
    state = read_state(run)
    assert (state.state, state.exit_code) == ("failed", 70)
    assert "no step, evaluated batch or checkpoint for 12 s" in state.reason
    assert failure(run).name == "hang"
    for log in (tmp_path / "log", run / layout.TASK_LOG):
        assert f'test_watchdog.py", line {stuck.__code__.co_firstlineno + 1} in stuck' in (
            log.read_text()
        )
    assert end(start(config)) == 0
    assert result(run) == expected


WATCHED = """
import sys, time
from gptopt import watchdog

watchdog.LAST_WORDS_S = 1.0
record = eval(sys.argv[2])
with watchdog.Watchdog(eval(sys.argv[1]), None, record) as watched:
    print("watched", flush=True)
    for seconds in sys.argv[3:]:
        time.sleep(float(seconds))
        watched.beat()
"""
NOTHING = "lambda error: None"


def watched(limit_min, *sleeps, record=NOTHING):
    command = [sys.executable, "-c", WATCHED, limit_min, record, *map(str, sleeps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("limit_min", "sleeps", "code"),
    [
        ("3 / 60", [60], 70),
        ("None", [5], 0),
        ("3 / 60", [1.5, 6], 0),  # one step was slow: ten times that may pass
    ],
)
def test_the_limit_is_minutes_or_ten_times_the_slowest_step(limit_min, sleeps, code):
    assert watched(limit_min, *sleeps).wait(60) == code


def test_a_process_that_was_stopped_does_not_hang():
    process = watched("3 / 60", 1)
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0


def test_a_failure_that_cannot_be_recorded_keeps_nothing_alive():
    assert watched("1 / 60", 60, record="lambda error: time.sleep(3600)").wait(60) == 70
