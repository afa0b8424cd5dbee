"""What a run directory tells of its run."""

import fcntl
import json
import os
import socket
import time

import pytest

from gptopt import layout
from gptopt.files import write_json
from gptopt.state import LEASE_S, owner, read_state


@pytest.fixture
def run(tmp_path):
    (tmp_path / layout.ATTEMPTS).mkdir()
    return tmp_path


def attempt(run, number, *, age=0.0, **record):
    path = layout.attempt_file(run, number)
    path.write_text(json.dumps(record))
    os.utime(path, (time.time() - age, time.time() - age))


@pytest.fixture
def held(run):
    with open(run / layout.LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_directory_without_attempts_is_new(run):
    assert read_state(run).state == "new"
    assert read_state(run / "nothing" / "here").state == "new"


def test_a_held_lock_means_running_whatever_the_status_says(run, held):
    attempt(run, 1, host=socket.gethostname(), pid=1)
    write_json(run / layout.STATUS, {"state": "preempted", "step": 7, "attempt": 1})
    assert (read_state(run).state, read_state(run).step) == ("running", 7)


@pytest.mark.parametrize("word", ["running", "failed", "completed", None])
def test_an_attempt_that_nobody_holds_is_interrupted(run, word):
    attempt(run, 1, host=socket.gethostname(), pid=1)
    write_json(run / layout.STATUS, {"state": word, "step": 7, "attempt": 1})
    assert read_state(run).state == "interrupted"


def test_only_the_newest_attempt_can_be_the_preempted_one(run):
    attempt(run, 1, host=socket.gethostname())
    write_json(run / layout.STATUS, {"state": "preempted", "step": 7, "attempt": 1})
    assert read_state(run).state == "preempted"
    attempt(run, 2, host=socket.gethostname())
    assert read_state(run).state == "interrupted"


@pytest.mark.parametrize("state", ["completed", "diverged", "failed"])
def test_a_terminal_marker_decides_even_when_it_cannot_be_read(run, state):
    attempt(run, 1)
    (run / layout.TERMINAL[state]).write_text('{"step": 24, "state": "x')
    assert read_state(run).state == state
    assert read_state(run).terminal


def test_a_damaged_status_never_raises(run):
    attempt(run, 1, host=socket.gethostname())
    whole = json.dumps({"state": "preempted", "step": 7, "max_steps": 24, "attempt": 1})
    for length in range(len(whole)):
        (run / layout.STATUS).write_text(whole[:length])
        assert read_state(run).state == "interrupted"
    for strange in ("[1]", "null", '{"state": 3, "step": "x", "reason": {}}', "\0" * 50):
        (run / layout.STATUS).write_text(strange)
        assert read_state(run).state == "interrupted"
    (run / layout.STATUS).write_bytes(b"\xff\xfe")
    assert read_state(run).state == "interrupted"


@pytest.mark.parametrize("damage", ['["no mapping"]', "3", "{"])
def test_a_damaged_attempt_record_never_raises(run, damage):
    layout.attempt_file(run, 1).write_text(damage)
    assert read_state(run).state in ("running", "interrupted")


def test_an_attempt_of_another_host_lives_as_long_as_its_heartbeat(run):
    attempt(run, 1, host="another", pid=1, age=LEASE_S - 30)
    assert read_state(run).state == "running"
    attempt(run, 1, host="another", pid=1, age=LEASE_S + 30)
    assert read_state(run).state == "interrupted"
    attempt(run, 1, host="another", pid=1, ended=time.time())
    assert read_state(run).state == "interrupted"


def test_the_age_of_a_heartbeat_is_told_by_the_file_server(run):
    # this machine's clock is an hour ahead of the server that stamped the heartbeat
    attempt(run, 1, host="another", pid=1, age=3600.0)
    server = layout.attempt_file(run, 1).stat().st_mtime
    assert owner(run, now=server + LEASE_S - 1) is not None
    assert owner(run, now=server + LEASE_S + 1) is None


def test_a_requeued_job_need_not_wait_for_its_own_heartbeat(run, monkeypatch):
    attempt(run, 1, host="another", pid=1, job="42", restart=0)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert owner(run) is not None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert owner(run) is None
    monkeypatch.setenv("SLURM_JOB_ID", "43")
    assert owner(run) is not None
