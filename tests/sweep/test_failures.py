"""Why a run has no result, as its directory tells it."""

import json
import os
import socket

import pytest

from gptopt import layout
from gptopt.lease import Lease
from gptopt.run import _record_failure
from gptopt.state import read_state
from gptopt.sweep.failures import CLASSES, HELD, RETRIED, failure, is_held


class DataError(ValueError):
    exit_code = 65


class OutOfMemoryError(RuntimeError):
    """Known by its name, as torch's is."""


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


FAILED = {
    "data": (DataError("shard.bin: cut off"), "DataError: shard.bin: cut off"),
    "out of memory": (OutOfMemoryError("80 GiB"), "OutOfMemoryError: 80 GiB"),
    "storage": (OSError(28, "No space left on device"), "No space left on device"),
    "crash": (ZeroDivisionError("float division"), "ZeroDivisionError: float division"),
}


@pytest.mark.parametrize("name", FAILED)
def test_a_failed_run_tells_its_class_and_the_last_line_of_the_traceback(run, name):
    error, words = FAILED[name]
    lease = Lease.take(run)
    try:
        raise error
    except Exception as raised:
        _record_failure(run, lease, raised)
    lease.release()
    found = failure(run)
    assert found.name == name
    assert words in found.words


@pytest.mark.parametrize(
    ("state", "reason", "name"),
    [
        ("preempted", "deadline in 119 s", "time limit"),
        ("preempted", "SIGTERM", "preempted"),
        ("preempted", "SIGUSR1", "preempted"),
        ("interrupted", "stop file", "stopped"),
        ("interrupted", "SIGINT", "stopped"),
        ("interrupted", "KeyboardInterrupt", "stopped"),
    ],
)
def test_a_run_that_was_told_to_stop_says_by_whom(run, state, reason, name):
    lease = Lease.take(run)
    lease.status(state, reason=reason, step=3)
    lease.release()
    assert failure(run).name == name


@pytest.mark.parametrize(("code", "name"), [(2, "config"), (70, "hang"), (73, "storage")])
def test_an_exit_code_of_a_failed_run_is_a_class(run, code, name):
    run.mkdir()
    (run / "failed.json").write_text(json.dumps({"reason": "words", "exit_code": code}))
    assert failure(run).name == name


def test_a_process_that_ended_without_a_word_is_told_with_its_machine(run):
    Lease.take(run).release()
    (run / "attempts/0001.json").write_text(json.dumps({"host": "n7", "boot": "b", "job": "123"}))
    (run / "attempts/0001.json").touch()
    os.utime(run / "attempts/0001.json", (0, 0))  # no heartbeat since 1970
    found = failure(run)
    assert (found.name, "n7, job 123" in found.words) == ("node failure", True)


def test_a_process_that_was_killed_here_is_no_lost_node_but_retried_alike(run):
    lease = Lease.take(run)
    lease.status("running", step=4)
    lease.release()
    found = failure(run)
    assert found.words == f"its process on {socket.gethostname()} was killed after step 4"
    assert found.name in RETRIED


@pytest.mark.parametrize("state", ["completed", "diverged"])
def test_a_result_is_no_failure_that_is_retried(run, state):
    run.mkdir()
    (run / layout.TERMINAL[state]).write_text("{}")
    found = failure(run)
    assert (found.name if found else None) == {"completed": None, "diverged": "diverged"}[state]
    assert "diverged" not in RETRIED


def test_a_run_that_waits_has_no_failure(run):
    assert failure(run) is None


def test_only_what_would_fail_again_is_held_back(run):
    run.mkdir()
    for code, held in ((2, True), (65, True), (69, True), (1, False), (70, False), (74, False)):
        (run / "failed.json").write_text(json.dumps({"exit_code": code}))
        assert is_held(read_state(run)) is held
    assert not set(HELD) & set(RETRIED)
    assert set(HELD) | set(RETRIED) | {"diverged", "stopped"} == set(CLASSES)
